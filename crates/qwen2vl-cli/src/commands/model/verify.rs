//! `qwen2vl model verify`: whether every byte of a package is as it was written.

use anyhow::Result;
use qwen2vl_pipeline::{ModelPackage, cache_root};

use crate::args::ModelVerifyArgs;
use crate::{SOME_FAILED, model, output};

pub fn run(args: &ModelVerifyArgs) -> Result<u8> {
    let path = match &args.model {
        Some(name) => model::resolve(name)?,
        None => model::demo_package()?.root,
    };
    let checks = ModelPackage::verify(&path, &cache_root()?);
    let failed = checks.iter().any(|check| !check.ok);
    if args.json {
        let ok = !failed;
        let json = serde_json::json!({ "model": path, "ok": ok, "checks": checks });
        output::print_text(&(serde_json::to_string_pretty(&json)? + "\n"))?;
    } else {
        for check in &checks {
            let state = if check.ok { "ok" } else { "FAILED" };
            output::print_text(&format!("{state:<7} {}: {}\n", check.check, check.detail))?;
        }
    }
    Ok(if failed { SOME_FAILED } else { 0 })
}
