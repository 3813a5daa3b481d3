//! `qwen2vl plan`: what image sizes cost, without any image.

use anyhow::Result;
use qwen2vl_pipeline::{DecodeOptions, RequestOptions};
use serde_json::json;

use crate::args::PlanArgs;
use crate::model::{self, Limits};
use crate::output::print_json;
use crate::{NOTHING_DONE, SOME_FAILED};

/// Runs the command; the exit code.
pub fn run(args: &PlanArgs) -> Result<u8> {
    let processor = model::processor(&args.model, DecodeOptions::default().pdf_dpi)?;
    let mut options = RequestOptions::default();
    options.max_new_tokens = args.max_new_tokens;
    let max_pixels = processor.model_pixel_limits().max_pixels;
    let limits = Limits::apply(&args.limits, &args.model.engine.device, max_pixels, &mut options);
    let mut failed = 0;
    for &size in &args.sizes {
        match processor.plan(size, &options) {
            Ok(plan) => {
                if let Some(notice) = limits.notice(size) {
                    eprintln!("{notice}");
                }
                if let Some(pixels) = plan.lowered_to {
                    eprintln!(
                        "note: the memory limit leaves {}x{} at most {pixels} pixels",
                        size.width, size.height
                    );
                }
                print_json(&json!({
                    "size": [size.height, size.width],
                    "resized": [plan.resized.height, plan.resized.width],
                    "grid_thw": plan.grid_thw,
                    "tokens": plan.tokens,
                    "peak_bytes": plan.peak_bytes,
                }))?;
            }
            Err(error) => {
                failed += 1;
                eprintln!("error: {error}");
            }
        }
    }
    Ok(match failed {
        0 => 0,
        n if n == args.sizes.len() => NOTHING_DONE,
        _ => SOME_FAILED,
    })
}
