//! `qwen2vl inspect`: what the model would be given.

use std::path::Path;

use anyhow::{Context, Result};
use ndarray::ArrayView2;
use qwen2vl_pipeline::{
    AnimationInfo, MediaInfo, PixelValues, Prepared, PreparedVideo, Processor, Request, RequestOptions,
};
use serde_json::{Value, json};

use super::Prompt;
use crate::args::InspectArgs;
use crate::inputs::{self, Content, Item};
use crate::model::{self, Limits};
use crate::output::print_json;
use crate::{NOTHING_DONE, SOME_FAILED};

/// Runs the command; the exit code.
pub fn run(args: &InspectArgs) -> Result<u8> {
    let prompt = Prompt::read(&args.prompt)?.animations_as_videos(args.video.animations_as_videos);
    let processor = model::processor(&args.model, args.pdf.dpi)?;
    let mut options = RequestOptions::default();
    args.prompt.fill(&mut options);
    options.video = args.video.options();
    let max_pixels = processor.model_pixel_limits().max_pixels;
    let limits = Limits::apply(&args.limits, &args.model.engine.device, max_pixels, &mut options);
    if let Some(dir) = &args.npy {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot write {}", dir.display()))?;
    }

    let items = prompts(&args.inputs);
    let n_items = items.len();
    let mut failed = 0;
    for (index, item) in items.into_iter().map(|item| prompt.fill(item)).enumerate() {
        let prefix = if n_items > 1 { format!("{index}_") } else { String::new() };
        let inspected = item.content.map_err(anyhow::Error::from).and_then(|content| {
            let request = prompt.request(content, &options);
            inspect(&processor, &request, args.npy.as_deref(), &prefix, &limits)
        });
        match inspected {
            Ok(object) => print_json(&object)?,
            Err(error) => {
                failed += 1;
                let name = item.name.as_str().map_or_else(|| item.name.to_string(), str::to_owned);
                let message = format!("{error:#}");
                // Most errors name their input themselves.
                let known = name.is_empty() || message.contains(&name);
                eprintln!("error: {}{message}", if known { String::new() } else { format!("{name}: ") });
            }
        }
    }
    Ok(match failed {
        0 => 0,
        n if n == n_items => NOTHING_DONE,
        _ => SOME_FAILED,
    })
}

/// All images in one prompt; each row of a table is a prompt of its own.
fn prompts(arguments: &[String]) -> Vec<Item> {
    let (tables, images): (Vec<String>, Vec<String>) =
        arguments.iter().cloned().partition(|a| inputs::is_table(a));
    let mut prompts = Vec::new();
    if !images.is_empty() || tables.is_empty() {
        let content = inputs::expand(&images).into_iter().try_fold(Content::default(), |mut all, item| {
            let content = item.content?;
            all.images.extend(content.images);
            all.videos.extend(content.videos);
            Ok(all)
        });
        prompts.push(Item { name: "".into(), content });
    }
    prompts.extend(inputs::expand(&tables));
    prompts
}

fn inspect(
    processor: &Processor,
    request: &Request,
    npy: Option<&Path>,
    prefix: &str,
    limits: &Limits,
) -> Result<Value> {
    let prepared = processor.prepare(request)?;
    for notice in prepared.media.iter().filter_map(|m| limits.notice(m.size)) {
        eprintln!("{notice}");
    }
    if let Some(dir) = npy {
        write_pixels(dir, &format!("{prefix}image"), &prepared.images)?;
        for (i, video) in prepared.videos.iter().enumerate() {
            write_array(dir, &format!("{prefix}video_{i}.npy"), &video.pixel_values()?)?;
        }
    }
    let mut object = object(&prepared);
    for (input, shown) in request.images.iter().zip(object["images"].as_array_mut().into_iter().flatten()) {
        // As an image it is its first frame.
        if let Some(animation) = processor.animation(input)?.filter(AnimationInfo::is_animated) {
            shown["frames"] = animation.n_frames().into();
            shown["fps"] = animation.fps().into();
        }
    }
    Ok(object)
}

fn object(prepared: &Prepared) -> Value {
    let (images, videos) = prepared.media.split_at(prepared.images.len());
    let mut object = json!({
        "images": images.iter().map(media).collect::<Vec<_>>(),
        "prompt": prepared.prompt,
        "input_ids": prepared.encoded.input_ids,
        "position_ids": prepared.encoded.position_ids,
        "rope_delta": prepared.encoded.rope_delta,
    });
    if !videos.is_empty() {
        let video = |(info, video): (&MediaInfo, &PreparedVideo)| {
            let mut shown = media(info);
            shown["frame_indices"] = video.selection().frame_indices.clone().into();
            shown["sample_fps"] = video.selection().sample_fps.into();
            shown
        };
        object["videos"] = videos.iter().zip(&prepared.videos).map(video).collect();
    }
    if !prepared.warnings.is_empty() {
        object["warnings"] = prepared.warnings.clone().into();
    }
    object
}

fn media(info: &MediaInfo) -> Value {
    json!({
        "path": info.input,
        "size": [info.size.height, info.size.width],
        "resized": [info.resized.height, info.resized.width],
        "grid_thw": info.grid_thw,
        "tokens": info.tokens,
    })
}

/// Writes `[n_patches, patch_len]` f32 arrays, numbered in the order of the prompt.
fn write_pixels(dir: &Path, kind: &str, pixels: &[PixelValues]) -> Result<()> {
    pixels.iter().enumerate().try_for_each(|(i, values)| write_array(dir, &format!("{kind}_{i}.npy"), values))
}

fn write_array(dir: &Path, name: &str, values: &PixelValues) -> Result<()> {
    let n_patches = values.grid_thw.n_patches();
    let array = ArrayView2::from_shape((n_patches, values.data.len() / n_patches), &values.data)?;
    let path = dir.join(name);
    ndarray_npy::write_npy(&path, &array).with_context(|| format!("cannot write {}", path.display()))
}
