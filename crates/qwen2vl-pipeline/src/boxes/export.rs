//! Boxes as other programs read them: COCO's JSON, and YOLO's lines.
//!
//! Both number labels in the order in which they first come. A box without a label is an `object`.

use std::collections::HashMap;

use qwen2vl_preprocess::ImageSize;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::AnswerBox;

/// What boxes without a label are called.
const NO_LABEL: &str = "object";

/// Numbers for names, from 0 in order of appearance.
#[derive(Debug, Clone, Default)]
struct Numbering {
    names: Vec<String>,
    ids: HashMap<String, usize>,
}

impl Numbering {
    fn id(&mut self, name: &str) -> usize {
        match self.ids.get(name) {
            Some(id) => *id,
            None => {
                self.ids.insert(name.to_owned(), self.names.len());
                self.names.push(name.to_owned());
                self.names.len() - 1
            }
        }
    }
}

/// The label on one line.
fn class_name(one: &AnswerBox) -> String {
    let words: Vec<&str> = one.label.as_deref().unwrap_or(NO_LABEL).split_whitespace().collect();
    if words.is_empty() { NO_LABEL.to_owned() } else { words.join(" ") }
}

/// A data set in COCO's format for detection: `images`, `annotations` with `bbox` `[x, y, width, height]` in pixels,
/// `categories`; all ids from 1. A quadrilateral is the annotation's `segmentation`. Serialize it to get the file.
#[derive(Debug, Clone, Default)]
pub struct Coco {
    images: Vec<(String, ImageSize)>,
    image_ids: HashMap<(String, ImageSize), usize>,
    annotations: Vec<Annotation>,
    categories: Numbering,
}

#[derive(Debug, Clone, Serialize)]
struct Annotation {
    id: usize,
    image_id: usize,
    category_id: usize,
    bbox: [f64; 4],
    area: f64,
    segmentation: Vec<Vec<f64>>,
    iscrowd: u8,
}

impl Coco {
    /// Adds an image, with or without boxes; one that is there already gets these boxes too.
    pub fn add<'b>(
        &mut self,
        file_name: &str,
        size: ImageSize,
        boxes: impl IntoIterator<Item = &'b AnswerBox>,
    ) {
        let next = self.images.len() + 1;
        let image_id = *self.image_ids.entry((file_name.to_owned(), size)).or_insert(next);
        if image_id == next {
            self.images.push((file_name.to_owned(), size));
        }
        for one in boxes {
            let category_id = self.categories.id(&class_name(one)) + 1;
            let (x, y, width, height) = (one.bbox.x1, one.bbox.y1, one.bbox.width(), one.bbox.height());
            let segmentation = one.quad.iter().map(|quad| quad.concat()).collect();
            let area = one.quad.as_ref().map_or(width * height, shoelace);
            let (id, bbox) = (self.annotations.len() + 1, [x, y, width, height]);
            self.annotations.push(Annotation {
                id,
                image_id,
                category_id,
                bbox,
                area,
                segmentation,
                iscrowd: 0,
            });
        }
    }
}

impl Serialize for Coco {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let image = |(i, (name, size)): (usize, &(String, ImageSize))| json!({ "id": i + 1, "file_name": name, "width": size.width, "height": size.height });
        let category =
            |(i, name): (usize, &String)| json!({ "id": i + 1, "name": name, "supercategory": "" });
        let mut coco = serializer.serialize_struct("Coco", 4)?;
        coco.serialize_field("info", &json!({ "description": "qwen2vl" }))?;
        coco.serialize_field("images", &self.images.iter().enumerate().map(image).collect::<Vec<_>>())?;
        coco.serialize_field("annotations", &self.annotations)?;
        let categories = self.categories.names.iter().enumerate().map(category);
        coco.serialize_field("categories", &categories.collect::<Vec<_>>())?;
        coco.end()
    }
}

/// Area of a polygon.
fn shoelace(quad: &[[f64; 2]; 4]) -> f64 {
    let cross = |i: usize| quad[i][0] * quad[(i + 1) % 4][1] - quad[(i + 1) % 4][0] * quad[i][1];
    ((0..4).map(cross).sum::<f64>() / 2.0).abs()
}

/// The classes of a data set in YOLO's format, and the lines of its boxes.
#[derive(Debug, Clone, Default)]
pub struct YoloClasses {
    classes: Numbering,
}

impl YoloClasses {
    /// A box as `class x_center y_center width height`, all but the class from 0 to 1, without a line's end.
    pub fn line(&mut self, one: &AnswerBox, size: ImageSize) -> String {
        let class = self.classes.id(&class_name(one));
        let (width, height) = (f64::from(size.width), f64::from(size.height));
        let (b, part) = (&one.bbox, |a: f64, b: f64, whole: f64| (a + b) / 2.0 / whole);
        let (x, y) = (part(b.x1, b.x2, width), part(b.y1, b.y2, height));
        format!("{class} {x:.6} {y:.6} {:.6} {:.6}", b.width() / width, b.height() / height)
    }

    /// Names of the classes so far: the lines of `classes.txt`.
    pub fn names(&self) -> &[String] {
        &self.classes.names
    }
}
