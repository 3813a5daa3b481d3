//! Times preprocessing by the same protocol as `tools/bench/hf_preprocess.py`, so that a harness can alternate the two.
//!
//! `preprocess_timing [--images DIR] [--rounds N]` reads 640x480.jpg, 1920x1080.jpg and 4032x3024.jpg, makes those that
//! are missing, and prints one JSON line per case, source and thread count. Both programs take `target/preprocess-bench`
//! if no folder is given.

use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use qwen2vl_preprocess::{
    DecodeOptions, PixelLimits, PreprocessOptions, Preprocessor, RgbImage, decode_image,
};
use rayon::ThreadPool;
use rayon::prelude::*;
use rustix::time::{ClockId, clock_gettime};

const CASES: [(usize, usize); 3] = [(640, 480), (1920, 1080), (4032, 3024)];
const BATCH_CASE: &str = "1920x1080";
const BATCH: usize = 8;

#[derive(Default)]
struct Times {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

impl Times {
    /// Milliseconds for each of the `images` that `work` goes through.
    fn measure(&mut self, images: usize, work: impl FnOnce()) {
        let (wall, cpu) = (Instant::now(), cpu_ms());
        work();
        self.cpu_ms.push((cpu_ms() - cpu) / images as f64);
        self.wall_ms.push(wall.elapsed().as_secs_f64() * 1e3 / images as f64);
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
    fn run_rgb(&self, image: &RgbImage) {
        black_box(self.preprocessor.preprocess_with(image, self.limits).expect("the image is good"));
    }

    fn run_jpeg(&self, bytes: &[u8]) {
        self.run_rgb(&decode_image(bytes, &DecodeOptions::default()).expect("the file is good"));
    }

    fn batch_rgb(&self, pool: &ThreadPool, images: &[RgbImage]) {
        black_box(pool.install(|| self.preprocessor.preprocess_batch(images, self.limits)));
    }

    fn batch_jpeg(&self, pool: &ThreadPool, bytes: &[u8]) {
        pool.install(|| (0..BATCH).into_par_iter().for_each(|_| self.run_jpeg(bytes)));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (images, rounds) = arguments()?;
    let preprocessor = Preprocessor::new(PreprocessOptions::default())?;
    let bench = Bench { limits: preprocessor.options().pixel_limits, preprocessor };
    for (width, height) in CASES {
        let case = &format!("{width}x{height}");
        let bytes = jpeg_file(&images.join(format!("{case}.jpg")), width, height)?;
        let image = decode_image(&bytes, &DecodeOptions::default())?;
        let (mut rgb, mut jpeg) = (Times::default(), Times::default());
        bench.run_jpeg(&bytes);
        for _ in 0..rounds {
            rgb.measure(1, || bench.run_rgb(&image));
            jpeg.measure(1, || bench.run_jpeg(&bytes));
        }
        rgb.print(case, "rgb", 1);
        jpeg.print(case, "jpeg", 1);
        if case == BATCH_CASE {
            batches(&bench, &bytes, image, rounds)?;
        }
    }
    Ok(())
}

/// A batch on one thread and on two, in turns.
fn batches(bench: &Bench, bytes: &[u8], image: RgbImage, rounds: usize) -> Result<(), Box<dyn Error>> {
    let name = format!("batch of {BATCH} {BATCH_CASE}");
    let images = vec![image; BATCH];
    let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pools = [pool(1)?, pool(2)?];
    let (mut rgb, mut jpeg): ([Times; 2], [Times; 2]) = Default::default();
    bench.batch_rgb(&pools[1], &images);
    for _ in 0..rounds {
        for (pool, (rgb, jpeg)) in pools.iter().zip(rgb.iter_mut().zip(&mut jpeg)) {
            rgb.measure(BATCH, || bench.batch_rgb(pool, &images));
            jpeg.measure(BATCH, || bench.batch_jpeg(pool, bytes));
        }
    }
    for (threads, (rgb, jpeg)) in rgb.iter().zip(&jpeg).enumerate() {
        rgb.print(&name, "rgb", threads + 1);
        jpeg.print(&name, "jpeg", threads + 1);
    }
    Ok(())
}

fn arguments() -> Result<(PathBuf, usize), Box<dyn Error>> {
    let mut images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/preprocess-bench");
    let mut rounds = 5;
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--images" => images = value.into(),
            "--rounds" => rounds = value.parse()?,
            _ => return Err(format!("unknown argument {name}").into()),
        }
    }
    Ok((images, rounds))
}

/// The file's bytes; a missing file is made first.
fn jpeg_file(path: &Path, width: usize, height: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    if !path.exists() {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, make_jpeg(width, height)?)?;
    }
    Ok(std::fs::read(path)?)
}

/// A picture of the test set, repeated to the size; baseline JPEG, quality 90, 4:2:0.
fn make_jpeg(width: usize, height: usize) -> Result<Vec<u8>, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let picture = std::fs::read(root.join("tests/images/scene_1920x1080.jpg"))?;
    let picture = decode_image(&picture, &DecodeOptions::default())?;
    let (rows, columns) = (picture.size().height as usize, picture.size().width as usize);
    let pixel = |i: usize| {
        let at = ((i / width % rows) * columns + i % width % columns) * 3;
        picture.as_raw()[at..at + 3].iter().copied()
    };
    let rgb: Vec<u8> = (0..width * height).flat_map(pixel).collect();

    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(width, height);
    encoder.set_quality(90.0);
    encoder.set_chroma_sampling_pixel_sizes((2, 2), (2, 2));
    let mut started = encoder.start_compress(Vec::new())?;
    started.write_scanlines(&rgb)?;
    Ok(started.finish()?)
}
