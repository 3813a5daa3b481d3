"""The peer of `cargo xtask bench --against genai`: openvino-genai, a job in a fresh process.

    genai.py --check                          print the versions, or say what is missing and exit 3
    genai.py --prepare --model DIR --work DIR print a folder with the model and the tokenizer that openvino-genai needs
    genai.py --model DIR --job FILE [--way one-by-one|together] [--threads N] [--cache DIR]

The last form prints one JSON line with the fields of the pipeline's example `bench_job`, of which it takes the job.
One by one is VLMPipeline, together ContinuousBatchingPipeline with its prefix cache on. Images are read inside the
time to the first token, as there; answers are greedy and have all their tokens.
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


class Job:
    def __init__(self, args):
        # Importing does not count: a program in C++ has none.
        import numpy
        import openvino
        import openvino_genai
        from PIL import Image

        self.genai, self.args = openvino_genai, args
        self.requests = json.loads(pathlib.Path(args.job).read_text())["requests"]
        self.read = lambda path: openvino.Tensor(numpy.asarray(Image.open(path).convert("RGB"))[None])
        self.properties = {}
        if args.threads:
            self.properties["INFERENCE_NUM_THREADS"] = args.threads
        if args.cache:
            self.properties["CACHE_DIR"] = args.cache

    def config(self, pipeline, request):
        config = pipeline.get_generation_config() if hasattr(pipeline, "get_generation_config") else pipeline.get_config()
        config.max_new_tokens = request["max_new_tokens"]
        config.do_sample = False
        config.ignore_eos = True
        return config

    def images(self, request):
        return [self.read(path) for path in request["images"]]

    def one_by_one(self):
        started = time.perf_counter()
        pipeline = self.genai.VLMPipeline(str(self.args.model), "CPU", **self.properties)
        figures = {"load_ms": (time.perf_counter() - started) * 1e3}
        started, prompt_tokens, output_tokens = time.perf_counter(), 0, 0
        for index, request in enumerate(self.requests):
            begun = time.perf_counter()
            images = self.images(request)
            read = time.perf_counter() - begun
            options = {"images": images} if images else {}
            result = pipeline.generate(request["prompt"], generation_config=self.config(pipeline, request), **options)
            metrics = result.perf_metrics
            tokens = metrics.get_num_generated_tokens()
            prompt_tokens += metrics.get_num_input_tokens()
            output_tokens += tokens
            if index == 0:
                ttft = read * 1e3 + metrics.get_ttft().mean
                figures.update(
                    ttft_ms=ttft,
                    tpot_ms=metrics.get_tpot().mean if tokens > 1 else None,
                    vision_ms=metrics.get_prepare_embeddings_duration().mean,
                    text=result.texts[0],
                )
        figures["wall_ms"] = (time.perf_counter() - started) * 1e3
        return figures | {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}

    def together(self):
        scheduler = self.genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        scheduler.cache_size = 1
        # The default of 256 splits every image over several steps.
        scheduler.max_num_batched_tokens = 2048
        started = time.perf_counter()
        pipeline = self.genai.ContinuousBatchingPipeline(str(self.args.model), scheduler, "CPU", self.properties)
        figures = {"load_ms": (time.perf_counter() - started) * 1e3}
        started = time.perf_counter()
        results = pipeline.generate(
            [request["prompt"] for request in self.requests],
            images=[self.images(request) for request in self.requests],
            generation_config=[self.config(pipeline, request) for request in self.requests],
        )
        figures.update(wall_ms=(time.perf_counter() - started) * 1e3, text=results[0].texts[0])
        metrics = [result.perf_metrics for result in results]
        prompt_tokens = sum(m.get_num_input_tokens() for m in metrics)
        # Answers have all their tokens; the pipeline counts none of its own.
        output_tokens = sum(request["max_new_tokens"] for request in self.requests)
        return figures | {"prompt_tokens": prompt_tokens, "output_tokens": output_tokens}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path)
    parser.add_argument("--job")
    parser.add_argument("--way", choices=["one-by-one", "together"], default="one-by-one")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--cache")
    args = parser.parse_args()
    if args.check:
        print(json.dumps(versions()))
    elif args.prepare:
        print(prepare(args.model, args.work))
    else:
        job = Job(args)
        figures = job.together() if args.way == "together" else job.one_by_one()
        print(json.dumps(figures | {"requests": len(job.requests), "peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
