//! Opens a package and says what it is: `cargo run -p qwen2vl-package --example open -- FOLDER_OR_ZIP`.

use std::path::Path;
use std::time::Instant;

use qwen2vl_package::{ModelPackage, cache_root};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("name an OpenVINO export folder or a zip of one")?;
    let started = Instant::now();
    let package = ModelPackage::open(Path::new(&path), &cache_root()?)?;
    println!(
        "{} in {}, opened in {:.1} ms",
        package.name,
        package.root.display(),
        started.elapsed().as_secs_f64() * 1e3
    );
    println!("{:#?}\n{:#?}", package.model, package.preprocess);
    Ok(())
}
