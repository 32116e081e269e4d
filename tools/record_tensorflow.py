"""Record what TensorFlow itself writes, into tests/data/formats/recorded/, and see that it reads what our tests write.

Run by hand where TensorFlow is installed (2.21.0 made the recorded files); it has no place among the project's own
requirements.

    python -m tools.record_tensorflow
"""

import io
import json
from pathlib import Path

from PIL import Image, ImageDraw

from tests.data.formats import record_writer

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "formats" / "recorded"
NAMES = ["nut", "bolt", "größe"]
OBJECTS = {  # file name, size, and class and corners in pixels of each object
    "one.jpg": ((64, 48), [("nut", [4, 6, 20, 30]), ("bolt", [10.5, 0, 64, 48])]),
    "two.png": ((33, 57), [("größe", [1, 1, 32, 20])]),
    "empty.jpg": ((20, 20), []),
}


def picture(name, size, objects):
    image = Image.new("RGB", size, (200, 200, 190))
    for label, box in objects:
        ImageDraw.Draw(image).ellipse(box, fill=(60 * NAMES.index(label), 90, 120))
    data = io.BytesIO()
    image.save(data, "PNG" if name.endswith("png") else "JPEG", quality=80)
    return data.getvalue()


def features(name):
    """The features of an image, as plain lists; the keys of the API's create_pascal_tf_record.py and its kin."""
    size, objects = OBJECTS[name]
    data = picture(name, size, objects)
    made = record_writer.detection(data, size, objects, names=NAMES)
    return made | {
        "image/filename": [name],
        "image/source_id": [name],
        "image/key/sha256": ["0" * 64],
        "image/format": [Path(name).suffix[1:]],
        "image/object/is_crowd": [int(label == "größe") for label, _ in objects],
        "image/object/difficult": [0] * len(objects),
        "image/object/truncated": [0] * len(objects),
        "image/object/view": ["Unspecified"] * len(objects),
        "image/object/area": [float((box[2] - box[0]) * (box[3] - box[1])) for _, box in objects],
    }


def example(tf, values):
    """A tf.train.Example of plain lists."""

    def feature(value):
        if value and isinstance(value[0], int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=value))
        if value and isinstance(value[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=value))
        parts = [one.encode() if isinstance(one, str) else one for one in value]
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=parts))

    made = {key: feature(value) for key, value in values.items()}
    return tf.train.Example(features=tf.train.Features(feature=made))


def record():
    """Write the files, and what is in them as JSON."""
    import tensorflow as tf

    FOLDER.mkdir(exist_ok=True)
    for name, kind in (("train.record", ""), ("val.tfrecord.gz", "GZIP")):
        with tf.io.TFRecordWriter(str(FOLDER / name), tf.io.TFRecordOptions(compression_type=kind)) as writer:
            for file in ["two.png"] if kind else ["one.jpg", "empty.jpg"]:
                writer.write(example(tf, features(file)).SerializeToString(deterministic=True))
    truth = {"tensorflow": tf.__version__, "names": NAMES, "objects": OBJECTS}
    (FOLDER / "truth.json").write_text(
        json.dumps(truth, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def read_back():
    """TensorFlow reads what the tests' own writer writes, message for message."""
    import tempfile

    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        for suffix, kind in ((".record", ""), (".record.gz", "GZIP")):
            for packed in (True, False):
                path = Path(folder, f"ours{suffix}")
                record_writer.write_records(path, [features(file) for file in OBJECTS], packed=packed)
                found = [one.numpy() for one in tf.data.TFRecordDataset(str(path), compression_type=kind)]
                assert len(found) == len(OBJECTS)
                for data, file in zip(found, OBJECTS, strict=True):
                    assert tf.train.Example.FromString(data) == example(tf, features(file)), file
    print("TensorFlow reads alike what the tests write: plain and GZIP, packed and not")


if __name__ == "__main__":
    record()
    read_back()
