//! Times preprocessing by the same protocol as `tools/bench/hf_preprocess.py`, so that a harness can alternate the two.
//!
//! `preprocess_timing --images DIR [--rounds N]` reads 640x480.jpg, 1920x1080.jpg and 4032x3024.jpg and prints one JSON
//! line per case, source and thread count.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use qwen2vl_preprocess::{
    DecodeOptions, PixelLimits, PreprocessOptions, Preprocessor, RgbImage, decode_image,
};
use rayon::ThreadPool;
use rustix::time::{ClockId, clock_gettime};

const CASES: [&str; 3] = ["640x480", "1920x1080", "4032x3024"];
const BATCH_CASE: &str = "1920x1080";
const BATCH: usize = 16;

#[derive(Default)]
struct Times {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

impl Times {
    fn measure(&mut self, work: impl FnOnce()) {
        let (wall, cpu) = (Instant::now(), cpu_ms());
        work();
        self.cpu_ms.push(cpu_ms() - cpu);
        self.wall_ms.push(wall.elapsed().as_secs_f64() * 1e3);
    }

    fn print(&self, case: &str, from: &str, threads: usize) {
        let (wall, cpu) = (&self.wall_ms, &self.cpu_ms);
        println!(
            r#"{{"case": "{case}", "from": "{from}", "threads": {threads}, "wall_ms": {wall:.3?}, "cpu_ms": {cpu:.3?}}}"#
        );
    }
}

/// CPU time of the whole process.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

struct Bench {
    preprocessor: Preprocessor,
    limits: PixelLimits,
}

impl Bench {
    fn from_rgb(&self, image: &RgbImage) {
        black_box(self.preprocessor.preprocess_with(image, self.limits).expect("the image is good"));
    }

    fn from_jpeg(&self, bytes: &[u8]) {
        self.from_rgb(&decode_image(bytes, &DecodeOptions::default()).expect("the file is good"));
    }

    fn batch(&self, pool: &ThreadPool, images: &[RgbImage]) {
        black_box(pool.install(|| self.preprocessor.preprocess_batch(images, self.limits)));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (images, rounds) = arguments()?;
    let preprocessor = Preprocessor::new(PreprocessOptions::default())?;
    let bench = Bench { limits: preprocessor.options().pixel_limits, preprocessor };
    for case in CASES {
        let bytes = std::fs::read(Path::new(&images).join(format!("{case}.jpg")))?;
        let image = decode_image(&bytes, &DecodeOptions::default())?;
        let (mut rgb, mut jpeg) = (Times::default(), Times::default());
        bench.from_jpeg(&bytes);
        for _ in 0..rounds {
            rgb.measure(|| bench.from_rgb(&image));
            jpeg.measure(|| bench.from_jpeg(&bytes));
        }
        rgb.print(case, "rgb", 1);
        jpeg.print(case, "jpeg", 1);
        if case == BATCH_CASE {
            let images = vec![image; BATCH];
            let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let (one, two) = (pool(1)?, pool(2)?);
            let (mut alone, mut together) = (Times::default(), Times::default());
            bench.batch(&two, &images);
            for _ in 0..rounds {
                alone.measure(|| bench.batch(&one, &images));
                together.measure(|| bench.batch(&two, &images));
            }
            let name = format!("batch of {BATCH} {case}");
            alone.print(&name, "rgb", 1);
            together.print(&name, "rgb", 2);
        }
    }
    Ok(())
}

fn arguments() -> Result<(String, usize), Box<dyn Error>> {
    let (mut images, mut rounds) = (None, 5);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--images" => images = Some(value),
            "--rounds" => rounds = value.parse()?,
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    Ok((images.ok_or("usage: preprocess_timing --images DIR [--rounds N]")?, rounds))
}
