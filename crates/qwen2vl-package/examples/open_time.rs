//! Opens a package twice with an empty cache, and says what that took, beside copying the same bytes.
//!
//! `cargo run --release -p qwen2vl-package --example open_time -- MODEL.zip [CACHE]`

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use peak_alloc::PeakAlloc;
use qwen2vl_package::ModelPackage;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let model = args.next().ok_or("name a package, and a folder to unpack it in")?;
    let base = args.next().unwrap_or_else(std::env::temp_dir);
    let cache = tempfile::tempdir_in(&base)?;
    println!("{:<10} {:>8} {:>12}", "", "seconds", "peak heap");
    if model.is_file() {
        // Read once before, so that neither has the advantage of a file that is in memory already.
        std::io::copy(&mut File::open(&model)?, &mut std::io::sink())?;
        measure("copy", || copy(&model, &cache.path().join("copy")))?;
        std::fs::remove_file(cache.path().join("copy"))?;
    }
    let package = measure("first", || Ok(ModelPackage::open(&model, cache.path())?))?;
    measure("second", || Ok(ModelPackage::open(&model, cache.path())?))?;
    println!("{}: {}, {} bytes of weights", package.name, package.provenance.kind, package.weight_bytes);
    Ok(())
}

/// What a disk allows: the zip's bytes once, down to the disk.
fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn std::error::Error>> {
    std::fs::copy(from, to)?;
    Ok(File::open(to)?.sync_all()?)
}

fn measure<T>(
    name: &str,
    run: impl FnOnce() -> Result<T, Box<dyn std::error::Error>>,
) -> Result<T, Box<dyn std::error::Error>> {
    HEAP.reset_peak_usage();
    let started = Instant::now();
    let result = run()?;
    println!("{name:<10} {:>8.3} {:>8.1} MiB", started.elapsed().as_secs_f64(), HEAP.peak_usage_as_mb());
    Ok(result)
}
