"""Takes over files that Spark NLP wrote into tests/golden/spark-files: parts of features, as `saveAsObjectFile` makes them.

    python spark_files.py FOLDER

FOLDER holds what a JVM with Spark NLP wrote, each part file under the name that it has here:

- addedTokens-plain.seq: Qwen2-VL's 14 added tokens as a MapFeature[String, Int], that is an RDD of pairs saved by
  `saveAsObjectFile`;
- addedTokens-record-deflate.seq, addedTokens-block-deflate.seq: the same, written with
  mapreduce.output.fileoutputformat.compress in the Hadoop configuration, the second with compress.type BLOCK;
- generationConfig-with-values.seq: a StructFeature[GenerationConfig] with every option set;
- odd-strings.seq and odd-strings.seq.crc: a map with the keys and values of expected.json, and the `.part-00000.crc`
  that Hadoop wrote beside it;
- tiny-random.zip: a saved annotator, of which the metadata and their checksums are taken;
- expected.json: what was written, and the classes of it with the JVM's serialVersionUIDs.

Sync markers are random, so another run gives other bytes with the same content.
"""
import hashlib
import json
import pathlib
import shutil
import sys
import zipfile

from common import GOLDEN

AREA = GOLDEN / "spark-files"
VERSIONS = {"spark": "3.5.9", "scala": "2.12.18", "hadoop": "3.3.4", "jdk": "17.0.15", "spark-nlp": "5.5.3"}


def main():
    folder = pathlib.Path(sys.argv[1])
    AREA.mkdir(exist_ok=True)
    for path in sorted(folder.glob("*.seq*")):
        shutil.copyfile(path, AREA / path.name)
    with zipfile.ZipFile(folder / "tiny-random.zip") as archive:
        (AREA / "metadata.json").write_bytes(archive.read("metadata/part-00000"))
        (AREA / "metadata.json.crc").write_bytes(archive.read("metadata/.part-00000.crc"))
    everything = json.loads((folder / "expected.json").read_text())
    on_disk = everything["features_on_disk"]
    expected = {
        "addedTokens": everything["addedTokens"],
        "classes": {name: c for feature in on_disk.values() for name, c in feature["classes"].items()},
        "generationConfig": everything["sequence_files"]["generationConfig-with-values.seq"],
        "odd-strings": everything["sequence_files"]["odd-strings.seq"]["map"],
        "metadata": everything["metadata"],
    }
    (AREA / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")
    files = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(AREA.iterdir()) if p.name != "MANIFEST.json"}
    manifest = {"script": "tools/reference/spark_files.py", "versions": VERSIONS, "files": files}
    (AREA / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")


main()
