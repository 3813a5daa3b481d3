"""Packs an export folder of seven OpenVINO models as Spark NLP's `ZipArchiveUtil` packs a saved Qwen2VLTransformer.

    python pack_spark.py EXPORT_DIR OUT_ZIP [--deflate LEVEL]

EXPORT_DIR is what export_spark_layout.py wrote. The package's vocabulary, merges, added tokens and generation settings are
copied from the demo model's package, which the real Spark NLP wrote (tests/models/demo-spark-nlp.zip.zst): they are the
same for every Qwen2-VL with the unchanged tokenizer. `metadata` is that package's with the image parameters of EXPORT_DIR.

Bytes as Java writes them: each model is a zip of its xml and bin, all of them lie in the outer zip beside their `.crc`
files; every member has method 8 and holds stored blocks of 32,768 bytes, flags 0x0808, sizes in a data descriptor. With
`--deflate` the outer members are truly deflated, which a published package may be too. Everything is streamed: the
largest member need not fit into memory, and no temporary file is written. Needs the `zstd` program for the demo package.
"""
import argparse
import contextlib
import json
import pathlib
import struct
import zlib

import common

DEMO_PACKAGE = "demo-spark-nlp"
MODELS = ["patch_reshape_model", "language_model", "vision_embeddings_model", "vision_embeddings_merger_model",
          "text_embeddings_model", "multimodal_merge_model", "rotary_embeddings_model"]
STORED_BLOCK = 32_768
BYTES_PER_CHECKSUM = 512
READ_BYTES = 1 << 20
# 2026-01-01 00:00, so that the same export gives the same bytes.
DOS_TIME, DOS_DATE = 0, (2026 - 1980) << 9 | 1 << 5 | 1
VERSION, FLAGS, DEFLATED = 20, 0x0808, 8


class Stored:
    """A deflate stream that compresses nothing."""

    def __init__(self):
        self.pending = b""

    def compress(self, data):
        self.pending += data
        whole = (len(self.pending) - 1) // STORED_BLOCK * STORED_BLOCK if self.pending else 0
        blocks = [self.block(self.pending[i:i + STORED_BLOCK], 0) for i in range(0, whole, STORED_BLOCK)]
        self.pending = self.pending[whole:]
        return b"".join(blocks)

    def flush(self):
        return self.block(self.pending, 1)

    @staticmethod
    def block(data, last):
        return struct.pack("<BHH", last, len(data), len(data) ^ 0xFFFF) + data


class Checksums:
    """The content of a Hadoop `.crc` side file."""

    def __init__(self):
        self.sums, self.pending = bytearray(b"crc\0" + struct.pack(">I", BYTES_PER_CHECKSUM)), b""

    def write(self, data):
        self.pending += data
        whole = len(self.pending) // BYTES_PER_CHECKSUM * BYTES_PER_CHECKSUM
        self.add(self.pending[:whole])
        self.pending = self.pending[whole:]

    def add(self, data):
        for i in range(0, len(data), BYTES_PER_CHECKSUM):
            self.sums += struct.pack(">I", zlib.crc32(data[i:i + BYTES_PER_CHECKSUM]))

    def content(self):
        self.add(self.pending)
        self.pending = b""
        return bytes(self.sums)


class Member:
    """One member's data on its way into the zip."""

    def __init__(self, out, packer):
        self.out, self.packer, self.crc, self.size, self.packed = out, packer, 0, 0, 0

    def write(self, data):
        self.crc, self.size = zlib.crc32(data, self.crc), self.size + len(data)
        self.put(self.packer.compress(data))

    def put(self, data):
        self.packed += len(data)
        self.out.write(data)

    def finish(self):
        self.put(self.packer.flush())
        if max(self.size, self.packed) >= 1 << 32:
            raise ValueError("a member of 4 GiB needs zip64, which this script does not write")
        return struct.pack("<III", self.crc, self.packed, self.size)


class Zip:
    """A zip written front to back into anything with `write`."""

    def __init__(self, out, packer=Stored):
        self.out, self.packer, self.offset, self.directory = out, packer, 0, []

    def write(self, data):
        self.offset += len(data)
        self.out.write(data)

    @contextlib.contextmanager
    def member(self, name):
        name, start = name.encode(), self.offset
        head = struct.pack("<HHHHH", VERSION, FLAGS, DEFLATED, DOS_TIME, DOS_DATE)
        self.write(b"PK\3\4" + head + bytes(12) + struct.pack("<HH", len(name), 0) + name)
        member = Member(self, self.packer())
        yield member
        sizes = member.finish()
        self.write(b"PK\7\x08" + sizes)
        self.directory.append(b"PK\1\2" + struct.pack("<H", VERSION) + head + sizes
                              + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, start) + name)

    def finish(self):
        directory, n = b"".join(self.directory), len(self.directory)
        if self.offset + len(directory) >= 1 << 32:
            raise ValueError("a zip of 4 GiB needs zip64, which this script does not write")
        self.write(directory + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, n, n, len(directory), self.offset, 0))


class Tee:
    def __init__(self, *outs):
        self.outs = outs

    def write(self, data):
        for out in self.outs:
            out.write(data)


@contextlib.contextmanager
def checked_member(archive, name):
    """A member, and after it its `.crc` side file."""
    checksums = Checksums()
    with archive.member(name) as member:
        yield Tee(member, checksums)
    folder, _, base = name.rpartition("/")
    with archive.member(f"{folder}/.{base}.crc" if folder else f".{base}.crc") as member:
        member.write(checksums.content())


def put_model(archive, export, model):
    with checked_member(archive, f"openvino_{model}.xml") as outer:
        inner = Zip(outer)
        for end in ("bin", "xml"):
            with inner.member(f"openvino_{model}.{end}") as member, open(export / f"openvino_{model}.{end}", "rb") as file:
                while data := file.read(READ_BYTES):
                    member.write(data)
        inner.finish()


def metadata(text, export):
    """The demo package's metadata with this export's image parameters."""
    content = json.loads(text)
    processor = json.loads((export / "assets" / "preprocessor_config.json").read_text())
    content["paramMap"].update(size=processor["size"], imageMean=processor["image_mean"], imageStd=processor["image_std"],
                               resample=processor["resample"])
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def pack(export, target, packer=Stored):
    demo = common.model_zip(DEMO_PACKAGE)
    with open(target, "wb") as file:
        archive = Zip(file, packer)
        with checked_member(archive, "metadata/part-00000") as member:
            member.write(metadata(demo.read("metadata/part-00000"), export))
        with checked_member(archive, "metadata/_SUCCESS"):
            pass
        for name in (n for n in demo.namelist() if n.startswith("fields/")):
            with archive.member(name) as member:
                member.write(demo.read(name))
        for model in MODELS:
            put_model(archive, export, model)
        archive.finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--deflate", type=int, metavar="LEVEL", help="deflate the outer members at this level, 1 to 9")
    args = parser.parse_args()
    packer = Stored if args.deflate is None else lambda: zlib.compressobj(args.deflate, zlib.DEFLATED, -zlib.MAX_WBITS)
    pack(args.export, args.out, packer)


if __name__ == "__main__":
    main()
