//! The types of columns, and Spark's JSON of a frame's schema.

use serde_json::{Value, json};

use crate::{DOCUMENT, IMAGE};

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// Spark's image struct.
    Image,
    /// `string`.
    Text,
    /// `bigint`.
    Long,
    /// `double`.
    Double,
    /// `boolean`.
    Boolean,
    /// An array of images with their questions, of annotator type `image`.
    AnnotationImages,
    /// An array of answers, of annotator type `document`.
    Annotations,
}

impl DataType {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Image => "image structs",
            Self::Text => "strings",
            Self::Long => "longs",
            Self::Double => "doubles",
            Self::Boolean => "booleans",
            Self::AnnotationImages => "annotations of type image",
            Self::Annotations => "annotations of type document",
        }
    }

    /// The column's metadata: by it Spark NLP's stages know what they can take.
    pub(crate) fn metadata(self) -> Value {
        match self {
            Self::AnnotationImages => json!({ "annotatorType": IMAGE }),
            Self::Annotations => json!({ "annotatorType": DOCUMENT }),
            _ => json!({}),
        }
    }

    /// The type in Spark's schema JSON.
    pub(crate) fn to_json(self) -> Value {
        match self {
            Self::Text => json!("string"),
            Self::Long => json!("long"),
            Self::Double => json!("double"),
            Self::Boolean => json!("boolean"),
            Self::Image => structure(&[
                ("origin", json!("string"), true),
                ("height", json!("integer"), true),
                ("width", json!("integer"), true),
                ("nChannels", json!("integer"), true),
                ("mode", json!("integer"), true),
                ("data", json!("binary"), true),
            ]),
            Self::AnnotationImages => array(&structure(&[
                ("annotatorType", json!("string"), true),
                ("origin", json!("string"), true),
                ("height", json!("integer"), false),
                ("width", json!("integer"), false),
                ("nChannels", json!("integer"), false),
                ("mode", json!("integer"), false),
                ("result", json!("binary"), true),
                ("metadata", text_map(), true),
                ("text", json!("string"), true),
            ])),
            Self::Annotations => array(&structure(&[
                ("annotatorType", json!("string"), true),
                ("begin", json!("integer"), false),
                ("end", json!("integer"), false),
                ("result", json!("string"), true),
                ("metadata", text_map(), true),
                (
                    "embeddings",
                    json!({ "type": "array", "elementType": "float", "containsNull": false }),
                    true,
                ),
            ])),
        }
    }
}

fn structure(fields: &[(&str, Value, bool)]) -> Value {
    let fields: Vec<Value> =
        fields.iter().map(|(name, kind, nullable)| field(name, kind, *nullable, &json!({}))).collect();
    json!({ "type": "struct", "fields": fields })
}

pub(crate) fn field(name: &str, kind: &Value, nullable: bool, metadata: &Value) -> Value {
    json!({ "name": name, "type": kind, "nullable": nullable, "metadata": metadata })
}

fn array(element: &Value) -> Value {
    json!({ "type": "array", "elementType": element, "containsNull": true })
}

fn text_map() -> Value {
    json!({ "type": "map", "keyType": "string", "valueType": "string", "valueContainsNull": true })
}
