"""What the golden scripts share: paths, and the manifest that ties data to script and versions."""
import hashlib
import importlib.metadata
import io
import json
import pathlib
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
DEMO = ROOT / "demo-model"
MODELS = ROOT / "tests" / "models"
TOKENIZER = "tokenizer.json"
PACKAGES = ["transformers", "torch", "torchvision", "pillow", "numpy", "tokenizers", "optimum-intel", "openvino"]


def unpack(name, where):
    """Unpacks one of the demo model's zips below `where` and returns its folder.

    The checkpoint's zip leaves out tokenizer.json, which is the one of the export.
    """
    target = pathlib.Path(where) / name
    if not target.exists():
        with zipfile.ZipFile(DEMO / f"{name}.zip") as archive:
            archive.extractall(target)
    if not (target / TOKENIZER).exists():
        with zipfile.ZipFile(DEMO / "demo-model-int4-ov.zip") as archive:
            archive.extract(TOKENIZER, target)
    return target


def model_zip(name):
    """The zip tests/models/NAME.zip.zst; needs the program `zstd`."""
    unpacked = subprocess.run(["zstd", "-dc", MODELS / f"{name}.zip.zst"], check=True, capture_output=True).stdout
    return zipfile.ZipFile(io.BytesIO(unpacked))


def write_model_zip(name, paths):
    """Packs files as tests/models/NAME.zip.zst: stored, and zstd over all of them, since they have much in common."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in paths:
            # A fixed date, so that the same models give the same bytes.
            archive.writestr(zipfile.ZipInfo(path.name), path.read_bytes())
    # The window that the decoder of the tests allows.
    command = ["zstd", "-q", "-f", "-19", "--long=26", "-o", MODELS / f"{name}.zip.zst"]
    subprocess.run(command, input=packed.getvalue(), check=True)


def write_jsonl(path, rows):
    with open(path, "w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def write_manifest(area, packages=PACKAGES, **extra):
    """MANIFEST.json of an area: script, versions, and the hash of every file beside it."""
    folder = GOLDEN / area
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json"
    }
    manifest = dict(
        script=f"tools/reference/{pathlib.Path(sys.argv[0]).name}",
        versions={name: importlib.metadata.version(name) for name in packages},
        **extra,
        files=files,
    )
    (folder / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{area}: {len(files)} files, {sum(p.stat().st_size for p in folder.rglob('*')) / 1e6:.2f} MB")
