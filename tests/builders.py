"""Synthetic limb radiographs with LabelImg XML beside them; see fracture_det/data/synthetic.py."""

from fracture_det.data.synthetic import build_dataset as build_dataset
from fracture_det.data.synthetic import draw_radiograph as draw_radiograph
from fracture_det.data.synthetic import labelimg_xml as labelimg_xml
from fracture_det.data.synthetic import write_image as write_image
