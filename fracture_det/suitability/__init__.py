"""Whether a picture is a radiograph of a limb at all, in numpy and OpenCV."""
