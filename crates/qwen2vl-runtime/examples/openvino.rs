//! Says which OpenVINO would be used, and what it can: `cargo run --example openvino`.

use qwen2vl_runtime::library;

fn main() -> Result<(), qwen2vl_runtime::Error> {
    let location = library::locate(None)?;
    println!("{} ({})", location.path.display(), location.source);
    let info = library::probe(&location)?;
    println!("version {}, devices {}", info.version, info.devices.join(", "));
    Ok(())
}
