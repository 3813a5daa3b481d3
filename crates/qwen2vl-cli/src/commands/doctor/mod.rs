//! `qwen2vl doctor`: what is there, what is not, and what to do about it.

mod numa;

use std::path::Path;

use anyhow::Result;
use qwen2vl_pipeline::{available_memory_bytes, cache_root, find_ffmpeg, library};
use serde_json::{Value, json};

use crate::SOME_FAILED;
use crate::args::DoctorArgs;
use crate::model;
use crate::output::print_json;

/// Runs the command; the exit code: 0 if everything is usable.
pub fn run(args: &DoctorArgs) -> Result<u8> {
    let findings = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "openvino": openvino(),
        "cpu": cpu(),
        "memory": { "available_bytes": available_memory_bytes() },
        "ffmpeg": ffmpeg(),
        "cache": cache(),
        "model": model(args),
    });
    let usable = ["openvino", "cache", "model"].iter().all(|part| findings[part]["error"].is_null());
    if args.json {
        print_json(&findings)?;
    } else {
        print_text(&findings);
    }
    Ok(if usable { 0 } else { SOME_FAILED })
}

fn openvino() -> Value {
    let mut found = json!({
        "library": null, "source": null, "version": null, "devices": [], "error": null,
        "tested_version": library::TESTED_VERSION,
    });
    let location = match library::locate(None) {
        Ok(location) => location,
        Err(error) => {
            found["error"] = error.to_string().into();
            return found;
        }
    };
    found["library"] = location.path.display().to_string().into();
    found["source"] = location.source.to_string().into();
    match library::probe(&location) {
        Ok(info) => {
            found["version"] = info.version.into();
            found["devices"] = info.devices.into();
        }
        Err(error) => found["error"] = error.to_string().into(),
    }
    found
}

/// Only videos need it, so its absence is no failure.
fn ffmpeg() -> Value {
    match find_ffmpeg(None) {
        Ok(found) => json!({
            "path": found.path().display().to_string(),
            "source": found.source().to_string(),
            "version": found.version(),
            "error": null,
        }),
        Err(error) => json!({ "path": null, "source": null, "version": null, "error": error.to_string() }),
    }
}

fn cpu() -> Value {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    json!({ "cores": cores, "features": cpu_features(), "numa_nodes": numa::nodes() })
}

/// Those that decide how fast INT4 inference is.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<&'static str> {
    let known = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
        ("avx512vnni", std::arch::is_x86_feature_detected!("avx512vnni")),
        ("avx512bf16", std::arch::is_x86_feature_detected!("avx512bf16")),
    ];
    known.iter().filter(|f| f.1).map(|f| f.0).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu_features() -> Vec<&'static str> {
    Vec::new()
}

fn cache() -> Value {
    let root = match cache_root() {
        Ok(root) => root,
        Err(error) => return json!({ "path": null, "error": error.to_string() }),
    };
    let error = write_probe(&root).err().map(|e| {
        format!("cannot write: {e}; free some space there, or name another folder by QWEN2VL_CACHE")
    });
    json!({ "path": root.display().to_string(), "error": error })
}

fn write_probe(root: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(root)?;
    let probe = root.join(format!(".doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, [0; 4096]);
    std::fs::remove_file(&probe).ok();
    written
}

fn model(args: &DoctorArgs) -> Value {
    match model::package(&args.model) {
        Ok(package) => json!({
            "name": package.name,
            "path": package.root.display().to_string(),
            "weight_bytes": package.weight_bytes,
            "error": null,
        }),
        Err(error) => {
            let path = args.model.model.as_ref().map(|p| p.display().to_string());
            json!({ "name": null, "path": path, "weight_bytes": null, "error": format!("{error:#}") })
        }
    }
}

fn print_text(findings: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let mib = |value: &Value| value.as_u64().map_or("unknown".to_owned(), |b| format!("{} MiB", b >> 20));
    let list = |value: &Value| {
        let items = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        items.collect::<Vec<_>>().join(", ")
    };
    let line =
        |ok: bool, name: &str, what: String| println!("{} {name:9} {what}", if ok { "ok  " } else { "FAIL" });
    println!("qwen2vl {}", text(&findings["version"]));

    let openvino = &findings["openvino"];
    if openvino["error"].is_null() {
        let version = text(&openvino["version"]);
        line(true, "OpenVINO", format!("{version}, devices {}", list(&openvino["devices"])));
        println!("               {}, {}", text(&openvino["library"]), text(&openvino["source"]));
        let tested = text(&openvino["tested_version"]);
        if !version.starts_with(&format!("{tested}-")) {
            println!("               note: tested with {tested}");
        }
    } else {
        line(false, "OpenVINO", text(&openvino["error"]));
    }
    let cpu = &findings["cpu"];
    line(true, "CPU", format!("{} cores, {}", cpu["cores"], list(&cpu["features"])));
    if cpu["numa_nodes"].as_u64().is_some_and(|nodes| nodes > 1) {
        println!(
            "               note: {} NUMA nodes; a process on each keeps memory near: numactl --cpunodebind=0 \
             --membind=0 qwen2vl …",
            cpu["numa_nodes"]
        );
    }
    line(true, "memory", format!("{} free", mib(&findings["memory"]["available_bytes"])));
    let ffmpeg = &findings["ffmpeg"];
    let found = match ffmpeg["error"].as_str() {
        None => {
            format!("{}, {}, {}", text(&ffmpeg["version"]), text(&ffmpeg["path"]), text(&ffmpeg["source"]))
        }
        Some(error) => format!("none; only video files need it: {error}"),
    };
    line(true, "ffmpeg", found);
    let cache = &findings["cache"];
    let error = |part: &Value| part["error"].as_str().map(|e| format!(": {e}")).unwrap_or_default();
    line(cache["error"].is_null(), "cache", format!("{}{}", text(&cache["path"]), error(cache)));
    let model = &findings["model"];
    if model["error"].is_null() {
        let weights = mib(&model["weight_bytes"]);
        line(
            true,
            "model",
            format!("{}, {weights} of weights, {}", text(&model["name"]), text(&model["path"])),
        );
    } else {
        line(false, "model", text(&model["error"]));
    }
}
