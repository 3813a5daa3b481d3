//! What becomes of boxes in answers, as flags.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use qwen2vl_pipeline::BoxForms;

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Boxes")]
pub struct BoxArgs {
    /// Write each image with its boxes and labels drawn to this folder, as PNG in its own size
    #[arg(long, value_name = "DIR")]
    pub draw: Option<PathBuf>,
    /// Write all boxes to this file in COCO's JSON format, in pixels
    #[arg(long, value_name = "FILE")]
    pub boxes: Option<PathBuf>,
    /// Write the boxes of each image to this folder in YOLO's format, with classes.txt
    #[arg(long, value_name = "DIR")]
    pub yolo: Option<PathBuf>,
    /// Which forms of boxes are read from answers [default: any with --draw, --boxes or --yolo, else marked]
    #[arg(long, value_enum, value_name = "FORMS", env = "QWEN2VL_BOX_FORMS")]
    pub box_forms: Option<BoxFormsArg>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum BoxFormsArg {
    /// None
    Off,
    /// Those between Qwen2-VL's special tokens
    Marked,
    /// Also those in plain text and JSON
    Any,
}

impl BoxArgs {
    /// Which forms are read.
    pub fn forms(&self) -> BoxForms {
        match self.box_forms {
            Some(BoxFormsArg::Off) => BoxForms::Off,
            Some(BoxFormsArg::Marked) => BoxForms::Marked,
            Some(BoxFormsArg::Any) => BoxForms::Any,
            None if self.is_asked() => BoxForms::Any,
            None => BoxForms::Marked,
        }
    }

    /// Whether anything is written for boxes.
    pub fn is_asked(&self) -> bool {
        self.draw.is_some() || self.boxes.is_some() || self.yolo.is_some()
    }
}
