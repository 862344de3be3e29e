"""What other tools export, written by the tests: one truth in every format, as each tool writes it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

# image name -> (height, width) and boxes (class, x0, y0, x1, y1) in pixels
Truth = dict[str, tuple[tuple[int, int], list[tuple[str, float, float, float, float]]]]

TRUTH: Truth = {
    "hand a.png": ((240, 200), [("fracture", 40, 50, 100, 80)]),
    "hand_b.png": ((240, 200), [("fracture", 10.5, 20.25, 60.5, 100.25), ("angle", 120, 130, 180, 200)]),
    "hand_c.png": ((300, 410), []),
}


def label_studio(truth: Truth) -> str:
    """Return the JSON export of Label Studio 1.13: percent of the image, names of uploads."""
    tasks = []
    for number, (image, (size, boxes)) in enumerate(truth.items(), 1):
        stored = f"{number:08x}-{image}"
        results = [label_studio_result(box, size, str(n)) for n, box in enumerate(boxes)]
        tasks.append(
            {
                "id": number,
                "annotations": [
                    {
                        "id": 10 + number,
                        "completed_by": 1,
                        "result": results,
                        "was_cancelled": False,
                        "ground_truth": False,
                        "created_at": "2024-01-30T02:40:43.893565Z",
                        "task": number,
                        "prediction": {},
                    }
                ],
                "file_upload": stored,
                "drafts": [],
                "predictions": [],
                "data": {"image": f"/data/upload/1/{stored.replace(' ', '%20')}"},
                "meta": {},
                "project": 1,
            }
        )
    return json.dumps(tasks)


def label_studio_result(
    box: tuple[str, float, float, float, float], size: tuple[int, int], number: str = "a", **value: object
) -> dict[str, object]:
    name, x0, y0, x1, y1 = box
    height, width = size
    return {
        "id": f"qd1jIVAq{number}",
        "type": "rectanglelabels",
        "value": {
            "x": x0 / width * 100,
            "y": y0 / height * 100,
            "width": (x1 - x0) / width * 100,
            "height": (y1 - y0) / height * 100,
            "rotation": 0,
            "rectanglelabels": [name],
            **value,
        },
        "origin": "manual",
        "to_name": "image",
        "from_name": "label",
        "image_rotation": 0,
        "original_width": width,
        "original_height": height,
    }


def label_studio_min(truth: Truth) -> str:
    """Return the JSON-MIN export of Label Studio 1.13: a reader's regions under the name of the control."""
    records = []
    for number, (image, (size, boxes)) in enumerate(truth.items(), 1):
        record = {"image": f"/data/local-files/?d=images/{image.replace(' ', '%20')}", "id": number}
        if boxes:
            results = [label_studio_result(box, size) for box in boxes]
            record["label"] = [
                {**result["value"], "original_width": size[1], "original_height": size[0]} for result in results
            ]
        times = {"created_at": "2024-01-30T02:40:43Z", "updated_at": "2024-01-30T02:40:43Z", "lead_time": 8.65}
        records.append({**record, "annotator": 1, "annotation_id": 20 + number, **times})
    return json.dumps(records)


def cvat(truth: Truth, *, extra: str = "") -> str:
    """Return "CVAT for images 1.1" of CVAT 2: two decimals, every image of the task."""
    images = []
    for number, (image, ((height, width), boxes)) in enumerate(truth.items()):
        shapes = "".join(
            f'    <box label="{name}" source="manual" occluded="0" xtl="{x0:.2f}" ytl="{y0:.2f}" xbr="{x1:.2f}" '
            f'ybr="{y1:.2f}" z_order="0">\n    </box>\n'
            for name, x0, y0, x1, y1 in boxes
        )
        images.append(f'  <image id="{number}" name="{image}" width="{width}" height="{height}">\n{shapes}  </image>\n')
    labels = "".join(f"<label><name>{name}</name><type>any</type></label>" for name in ("fracture", "angle"))
    meta = f"  <meta><task><id>7</id><mode>annotation</mode><labels>{labels}</labels></task></meta>\n"
    body = "  <version>1.1</version>\n" + meta + "".join(images) + extra
    return f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n{body}</annotations>\n'


def labelme(image: str, size: tuple[int, int], boxes: Sequence[tuple[str, float, float, float, float]]) -> str:
    """Return the file of labelme 5.5 for one image; the second corner was drawn first, as people do."""
    shapes = [
        {
            "label": name,
            "points": [[x1, y1], [x0, y0]],
            "group_id": None,
            "description": "",
            "shape_type": "rectangle",
            "flags": {},
            "mask": None,
        }
        for name, x0, y0, x1, y1 in boxes
    ]
    return json.dumps(
        {
            "version": "5.5.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": f"..\\images\\{image}",
            "imageData": None,
            "imageHeight": size[0],
            "imageWidth": size[1],
        },
        indent=2,
    )


def via_entries(truth: Truth) -> dict[str, dict[str, object]]:
    """Return the images of VIA 2.0.12: whole pixels where it draws them, the file's size in the key."""
    return {
        f"{image}1234": {
            "filename": image,
            "size": 1234,
            "regions": [
                {
                    "shape_attributes": {"name": "rect", "x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0},
                    "region_attributes": {"finding": name},
                }
                for name, x0, y0, x1, y1 in boxes
            ],
            "file_attributes": {} if boxes else {"review": "normal"},
        }
        for image, (_, boxes) in truth.items()
    }


def via_project(truth: Truth) -> str:
    attributes = {"region": {"finding": {"type": "text"}}, "file": {}}
    return json.dumps(
        {
            "_via_settings": {"ui": {}, "core": {}, "project": {"name": "hands"}},
            "_via_img_metadata": via_entries(truth),
            "_via_attributes": attributes,
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": list(via_entries(truth)),
        }
    )


def via_json(truth: Truth) -> str:
    return json.dumps(via_entries(truth))


def via_csv(truth: Truth) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    region_columns = ["region_count", "region_id", "region_shape_attributes", "region_attributes"]
    writer.writerow(["#filename", "file_size", "file_attributes", *region_columns])
    for entry in via_entries(truth).values():
        regions = entry["regions"]
        common = [entry["filename"], entry["size"], json.dumps(entry["file_attributes"]), len(regions)]
        for number, region in enumerate(regions):
            writer.writerow(
                [*common, number, json.dumps(region["shape_attributes"]), json.dumps(region["region_attributes"])]
            )
        if not regions:
            writer.writerow([*common, 0, "{}", "{}"])
    return text.getvalue()


def createml(truth: Truth) -> str:
    """Return CreateML's JSON as Roboflow writes it: the centre of each box."""
    return json.dumps(
        [
            {
                "image": image,
                "annotations": [
                    {
                        "label": name,
                        "coordinates": {"x": (x0 + x1) / 2, "y": (y0 + y1) / 2, "width": x1 - x0, "height": y1 - y0},
                    }
                    for name, x0, y0, x1, y1 in boxes
                ],
            }
            for image, (_, boxes) in truth.items()
        ]
    )


def tensorflow_csv(truth: Truth) -> str:
    """Return Roboflow's _annotations.csv, with the row that other tools write for an image without a box."""
    lines = ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for image, ((height, width), boxes) in truth.items():
        lines += [f"{image},{width},{height},{name},{x0},{y0},{x1},{y1}" for name, x0, y0, x1, y1 in boxes]
        lines += [] if boxes else [f"{image},{width},{height},,,,,"]
    return "\n".join(lines) + "\n"


EXPORTS = {
    "label-studio": ("project-1.json", label_studio),
    "label-studio min": ("project-1-min.json", label_studio_min),
    "cvat": ("annotations.xml", cvat),
    "via": ("via_project.json", via_project),
    "via json": ("via_region_data.json", via_json),
    "via csv": ("via_export_csv.csv", via_csv),
    "createml": ("_annotations.createml.json", createml),
    "tensorflow-csv": ("_annotations.csv", tensorflow_csv),
}
