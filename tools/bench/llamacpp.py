"""The peer of `cargo xtask bench --against llamacpp`: llama.cpp with weights in Q4_0, a job in a fresh process.

    llamacpp.py --check                          print the versions, or say what is missing and exit 3
    llamacpp.py --prepare --model DIR --work DIR build llama.cpp beside DIR, once for all models; print a folder with
                                                 the model as it takes it, made of a Hugging Face folder
    llamacpp.py --model DIR --job FILE [--threads N]

llama.cpp's source is that of the package llama-cpp-python, which carries it. The last form prints one JSON line with the
fields of the pipeline's example `bench_job`, of which it takes the job: one request. The answer is greedy and has all its
tokens. The vision tower is in Q8_0, as its converter makes it at most; all else is llama.cpp's default: cache in f16,
weights repacked, flash attention.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

# The package whose source holds llama.cpp's.
VERSION = "0.3.36"
TARGETS = ["llama-mtmd-cli", "llama-quantize"]
OPTIONS = [
    "CMAKE_BUILD_TYPE=Release",
    "BUILD_SHARED_LIBS=OFF",
    "GGML_NATIVE=ON",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_SERVER=OFF",
    "LLAMA_BUILD_UI=OFF",
    "LLAMA_OPENSSL=OFF",
]
TEXT, VISION = "model-q4_0.gguf", "mmproj-q8_0.gguf"
# The converter knows the tokenizers of published models by a hash, and no others; all of Qwen2-VL's split text alike.
CONVERT = """
import runpy, sys
source = sys.argv.pop(1)
sys.path[:0] = [source, source + "/gguf-py"]
from conversion import base
base.TextModel.get_vocab_base_pre = lambda self, tokenizer: "qwen2"
sys.argv[0] = source + "/convert_hf_to_gguf.py"
runpy.run_path(sys.argv[0], run_name="__main__")
"""
STAMP = r"(\d+)\.(\d\d)\.(\d{3})\.(\d{3})"


def versions():
    try:
        import numpy
        import safetensors  # noqa: F401
        import sentencepiece  # noqa: F401
        import torch
        import transformers
    except ImportError as error:
        print(f"{error} ({sys.executable})", file=sys.stderr)
        sys.exit(3)
    for program in ["cmake", os.environ.get("CXX", "c++")]:
        if shutil.which(program) is None:
            print(f"the program {program} is missing", file=sys.stderr)
            sys.exit(3)
    return {
        "llama-cpp-python": VERSION,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
    }


def run(command, **options):
    # What builds say is no figure.
    subprocess.run([str(part) for part in command], check=True, stdout=sys.stderr, **options)


def build(folder):
    """The folder of source and programs, built at the first time."""
    target = folder / f"build-{VERSION}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        partial = pathlib.Path(partial)
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        run(fetch + ["--dest", partial, f"llama-cpp-python=={VERSION}"])
        (archive,) = partial.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        made = partial / "made"
        made.mkdir()
        shutil.move(partial / archive.name.removesuffix(".tar.gz") / "vendor/llama.cpp", made / "source")
        configure = ["cmake", "-S", made / "source", "-B", partial / "build"]
        run(configure + [f"-D{option}" for option in OPTIONS])
        jobs = str(os.cpu_count() or 1)
        run(["cmake", "--build", partial / "build", "--parallel", jobs, "--target", *TARGETS])
        for program in TARGETS:
            shutil.copy(partial / "build/bin" / program, made / program)
        made.rename(target)
    return target


def prepare(model, work):
    built = build(work.parent)
    if (work / TEXT).exists() and (work / VISION).exists():
        return work
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as partial:
        partial = pathlib.Path(partial)
        source = converted_source(model, partial / "source")
        convert = [sys.executable, "-c", CONVERT, built / "source", source]
        run(convert + ["--outtype", "f16", "--outfile", partial / "f16.gguf"])
        run([built / "llama-quantize", partial / "f16.gguf", partial / TEXT, "Q4_0"])
        run(convert + ["--mmproj", "--outtype", "q8_0", "--outfile", partial / VISION])
        for name in [TEXT, VISION]:
            (partial / name).rename(work / name)
    return work


def converted_source(model, folder):
    """The model's folder with the architecture where the converter looks for it: transformers writes it elsewhere."""
    folder.mkdir()
    for file in model.resolve().iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((model / "config.json").read_text())
    config.setdefault("architectures", ["Qwen2VLForConditionalGeneration"])
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def answer(args):
    """Runs llama.cpp's own program and reads its log, each line of which begins with the time since its start."""
    requests = json.loads(pathlib.Path(args.job).read_text())["requests"]
    if len(requests) != 1:
        sys.exit(f"{args.job} has {len(requests)} requests; llama.cpp's program answers one")
    (request,) = requests
    program = args.model.parent / f"build-{VERSION}" / TARGETS[0]
    command = [program, "-m", args.model / TEXT, "--mmproj", args.model / VISION, "-p", request["prompt"]]
    command += ["-n", request["max_new_tokens"], "--temp", "0", "--ignore-eos", "--perf", "--verbosity", "4"]
    command += ["-t", args.threads or len(os.sched_getaffinity(0))]
    # With images alone it answers once and ends; without, it would wait for a person.
    for image in request["images"]:
        command += ["--image", image]
    if not request["images"]:
        sys.exit("llama.cpp's multimodal program needs an image")
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    text, log = (part.decode("utf-8", "replace") for part in child.communicate())
    if child.returncode != 0:
        sys.exit(f"llama.cpp failed ({child.returncode}): {log[-500:]}")
    import resource

    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return figures(log, request["max_new_tokens"]) | {"text": text.strip(), "peak_rss_bytes": peak}


def figures(log, wanted):
    def line(text):
        found = re.search(rf"^{STAMP} . .*?{text}.*$", log, re.MULTILINE)
        if found is None:
            sys.exit(f"llama.cpp's log has no line with {text}: {log[-500:]}")
        minutes, seconds, ms, us = map(int, found.groups()[:4])
        return found, minutes * 60e3 + seconds * 1e3 + ms + us / 1e3

    _, ready = line("main: loading model")
    # Prompt evaluation counts the image's encoding as well.
    prompt, _ = line(r"prompt eval time = *[\d.]+ ms / *(\d+) tokens")
    evaluated, end = line(r" eval time = *([\d.]+) ms / *(\d+) runs")
    encoded, _ = line(r"encoding done in (\d+) ms")
    eval_ms, runs = float(evaluated[5]), int(evaluated[6])
    if runs + 1 != wanted:
        sys.exit(f"llama.cpp answered with {runs + 1} tokens of {wanted}")
    return {
        "load_ms": ready,
        "ttft_ms": end - eval_ms - ready,
        "tpot_ms": eval_ms / runs if runs else None,
        "vision_ms": float(encoded[5]),
        "wall_ms": end - ready,
        "prompt_tokens": int(prompt[5]),
        "output_tokens": runs + 1,
        "requests": 1,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--job")
    parser.add_argument("--way", choices=["one-by-one"], default="one-by-one")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache", help="not used: llama.cpp keeps nothing")
    args = parser.parse_args()
    if args.check:
        print(json.dumps(versions()))
    elif args.prepare:
        print(prepare(args.model, args.work))
    else:
        print(json.dumps(answer(args)))


if __name__ == "__main__":
    main()
