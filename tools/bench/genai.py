"""The peer of `cargo xtask bench --against genai`: openvino-genai's VLMPipeline, one question in a fresh process.

    genai.py --check                          print the versions, or say what is missing and exit 3
    genai.py --prepare --model DIR --work DIR print a folder with the model and the tokenizer that openvino-genai needs
    genai.py --model DIR --image FILE [--prompt TEXT] [--max-new-tokens N] [--threads N] [--cache DIR]

The last form prints one JSON line with the fields of the pipeline's `bench_one`. The image is read inside the time to
the first token, as there. Sampling options are the package's own.
"""
import argparse
import json
import pathlib
import sys
import time


def versions():
    try:
        import numpy
        import openvino
        import openvino_genai
        import PIL
    except ImportError as error:
        print(f"{error} ({sys.executable})", file=sys.stderr)
        sys.exit(3)
    return {
        "openvino-genai": openvino_genai.__version__,
        "openvino": openvino.__version__,
        "python": sys.version.split()[0],
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
    }


def prepare(model, work):
    """openvino-genai reads the tokenizer as an OpenVINO model, which not every export holds."""
    if (model / "openvino_tokenizer.xml").exists():
        return model
    import openvino
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    work.mkdir(parents=True, exist_ok=True)
    for file in model.resolve().iterdir():
        link = work / file.name
        if not link.exists():
            link.symlink_to(file)
    if not (work / "openvino_detokenizer.xml").exists():
        pair = convert_tokenizer(AutoTokenizer.from_pretrained(str(model)), with_detokenizer=True)
        for part, name in zip(pair, ["tokenizer", "detokenizer"]):
            openvino.save_model(part, work / f"openvino_{name}.xml")
    return work


def peak_rss_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def measure(args):
    # Importing counts for neither: a service imports once.
    import numpy
    import openvino
    import openvino_genai
    from PIL import Image

    properties = {}
    if args.threads:
        properties["INFERENCE_NUM_THREADS"] = args.threads
    if args.cache:
        properties["CACHE_DIR"] = args.cache
    started = time.perf_counter()
    pipeline = openvino_genai.VLMPipeline(str(args.model), "CPU", **properties)
    load = time.perf_counter() - started

    started = time.perf_counter()
    pixels = numpy.asarray(Image.open(args.image).convert("RGB"))[None]
    read = time.perf_counter() - started
    config = pipeline.get_generation_config()
    config.max_new_tokens = args.max_new_tokens
    result = pipeline.generate(args.prompt, images=[openvino.Tensor(pixels)], generation_config=config)
    metrics = result.perf_metrics
    tokens = metrics.get_num_generated_tokens()
    print(
        json.dumps(
            {
                "load_ms": load * 1e3,
                "ttft_ms": read * 1e3 + metrics.get_ttft().mean,
                "tpot_ms": metrics.get_tpot().mean if tokens > 1 else None,
                "vision_ms": metrics.get_prepare_embeddings_duration().mean,
                "prompt_tokens": metrics.get_num_input_tokens(),
                "output_tokens": tokens,
                "peak_rss_bytes": peak_rss_bytes(),
                "text": result.texts[0],
            }
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--image")
    parser.add_argument("--prompt", default="Describe the image.")
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache")
    args = parser.parse_args()
    if args.check:
        print(json.dumps(versions()))
    elif args.prepare:
        print(prepare(args.model, args.work))
    else:
        measure(args)


if __name__ == "__main__":
    main()
