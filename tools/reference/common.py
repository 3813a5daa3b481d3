"""What the golden scripts share: paths, and the manifest that ties data to script and versions."""
import hashlib
import importlib.metadata
import json
import pathlib
import sys
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
DEMO = ROOT / "demo-model"
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


def write_jsonl(path, rows):
    with open(path, "w") as file:
        file.writelines(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


def write_manifest(area, **extra):
    """MANIFEST.json of an area: script, versions, and the hash of every file beside it."""
    folder = GOLDEN / area
    files = {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "MANIFEST.json"
    }
    manifest = dict(
        script=f"tools/reference/{pathlib.Path(sys.argv[0]).name}",
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        **extra,
        files=files,
    )
    (folder / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print(f"{area}: {len(files)} files, {sum(p.stat().st_size for p in folder.rglob('*')) / 1e6:.2f} MB")
