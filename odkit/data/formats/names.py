"""What formats, and the ways to read numbers in results, are called: known without the code that reads them.

The `odkit` command names them in its help and checks them before anything is read.
"""

TITLES = {
    "coco": "COCO",
    "voc": "Pascal VOC",
    "yolo": "YOLO",
    "csv": "CSV",
    "openimages": "Open Images",
    "cvat": "CVAT",
    "labelme": "LabelMe",
    "createml": "CreateML",
    "labelstudio": "Label Studio",
    "kitti": "KITTI",
    "tfrecord": "TFRecord",
}
"""What each format that can be read is called, by its name: a row of `READERS` each, in their order."""
WRITABLE = ("coco", "voc", "yolo", "cvat", "createml")
"""Those that can be written: the keys of `WRITERS`."""
READINGS = ("labels", "from-0", "from-1", "coco-91", "file")
"""Ways to read the number of a class: as the label file has it; as its place among the classes, counted from 0 or from
1; as COCO's own category id of one of its 80 classes; by the table that came with the results."""
IMAGE_READINGS = ("labels", "names", "from-0", "from-1")
"""Ways to read what an image is called: by its id in the label file; by its file name or the number in it; by its place
in the label file, counted from 0 or from 1."""
