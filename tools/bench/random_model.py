"""Makes the model that `cargo xtask bench` measures where none is named: random weights, the 2B's shapes, INT4.

    random_model.py --check                       print the versions, or say what is missing and exit 3
    random_model.py --work DIR --tokenizer DIR    make DIR/hf (4.4 GB) and DIR/openvino (1.8 GB), print DIR

What is there already is not made again. The tokenizer's folder needs tokenizer.json, tokenizer_config.json and
chat_template.jinja of Qwen2-VL.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys

MAKE = pathlib.Path(__file__).resolve().parents[1] / "reference" / "make_random_model.py"


def check():
    try:
        import nncf
        import openvino
        import torch
        import transformers
        from importlib.metadata import version

        optimum = version("optimum-intel")
    except ImportError as error:
        print(f"{error} ({sys.executable})", file=sys.stderr)
        sys.exit(3)
    modules = dict(transformers=transformers, torch=torch, openvino=openvino, nncf=nncf)
    print(json.dumps({name: module.__version__ for name, module in modules.items()} | {"optimum-intel": optimum}))


def make(folder, command):
    """Runs a command that fills a folder, which is there whole or not at all."""
    if folder.exists():
        return
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    subprocess.run([str(part) for part in command(partial)], check=True, stdout=sys.stderr)
    partial.rename(folder)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    args = parser.parse_args()
    if args.check:
        return check()
    args.work.mkdir(parents=True, exist_ok=True)
    hf = args.work / "hf"
    template = args.tokenizer / "chat_template.jinja"
    make(hf, lambda out: [sys.executable, MAKE, "full", "--tokenizer", args.tokenizer, "--template", template, "--out", out])
    optimum = pathlib.Path(sys.executable).parent / "optimum-cli"
    options = ["--task", "image-text-to-text", "--weight-format", "int4", "--group-size", "128"]
    make(args.work / "openvino", lambda out: [optimum, "export", "openvino", "-m", hf, *options, out])
    print(args.work)


if __name__ == "__main__":
    main()
