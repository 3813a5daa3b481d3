//! Looking into values of the few classes of Java and Scala that collections are written with.

use super::value::{Array, Object, Value};
use crate::{Error, Reason};

impl Value {
    /// The text of a `java.lang.String`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// An `int`, or the number in a `java.lang.Integer`.
    pub fn as_int(&self) -> Option<i32> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Object(object) if object.class_name() == "java.lang.Integer" => {
                match object.field("value") {
                    Some(Self::Int(number)) => Some(*number),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// An object of any class.
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A field of an object; none if this is no object or has no such field.
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.as_object()?.field(name)
    }

    /// The halves of a `scala.Tuple2`.
    ///
    /// Pairs of numbers are of a subclass such as `scala.Tuple2$mcII$sp`, which has the numbers in fields of its own
    /// and leaves those of `Tuple2` null.
    pub fn as_tuple(&self) -> Option<(&Value, &Value)> {
        let object = self.as_object()?;
        let class = object.class_name().strip_prefix("scala.Tuple2")?;
        if class.is_empty() {
            return Some((object.field("_1")?, object.field("_2")?));
        }
        let types = class.strip_prefix("$mc")?.strip_suffix("$sp")?;
        let mut types = types.chars();
        let (Some(first), Some(second), None) = (types.next(), types.next(), types.next()) else {
            return None;
        };
        let field = |n: u32, letter: char| object.field(&format!("_{n}$mc{letter}$sp"));
        Some((field(1, first)?, field(2, second)?))
    }

    /// What a `scala.Option` holds: `scala.Some`, `scala.None$`, or the stand-in of the latter that Scala 2.13 writes
    /// (`scala.runtime.ModuleSerializationProxy`).
    ///
    /// # Errors
    ///
    /// If the value is something else. The offset is where the value starts, or 0 for text, numbers and null, which do
    /// not know it.
    pub fn as_option(&self) -> Result<Option<&Value>, Error> {
        let class = self.as_object().map(Object::class_name);
        let found = match class {
            Some("scala.None$") => Some(None),
            // The field was called `x` until Scala 2.11.
            Some("scala.Some") => self.field("value").or_else(|| self.field("x")).map(Some),
            Some("scala.runtime.ModuleSerializationProxy") => match self.field("moduleClass") {
                Some(Self::Class(class)) if class.name() == "scala.None$" => Some(None),
                _ => None,
            },
            _ => None,
        };
        found.ok_or_else(|| {
            Error::new(
                self.offset().unwrap_or(0),
                Reason::Kind { expected: "a scala.Option", found: self.describe() },
            )
        })
    }

    /// Where the value starts in the stream; text, numbers, classes and null do not know it.
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::Array(array) => Some(array.offset),
            Self::Object(object) => Some(object.offset),
            Self::Enum(constant) => Some(constant.offset),
            _ => None,
        }
    }

    /// What kind of value this is, in a few words for messages: the name of its class or primitive type, and the value
    /// if that is short.
    pub fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(v) => format!("the boolean {v}"),
            Self::Byte(v) => format!("the byte {v}"),
            Self::Char(v) => format!("the char {v:#06x}"),
            Self::Short(v) => format!("the short {v}"),
            Self::Int(v) => format!("the int {v}"),
            Self::Long(v) => format!("the long {v}"),
            Self::Float(v) => format!("the float {v}"),
            Self::Double(v) => format!("the double {v}"),
            Self::String(text) => format!("the text {}", quote(text)),
            Self::Array(array) => format!("an array {} of {}", shorten(array.class.name()), array.len()),
            Self::Object(object) => format!("an object of class {}", shorten(object.class_name())),
            Self::Enum(constant) => {
                format!("the constant {} of {}", shorten(&constant.name), shorten(constant.class.name()))
            }
            Self::Class(class) => format!("the class {}", shorten(class.name())),
            Self::Descriptor(class) => format!("the descriptor of class {}", shorten(class.name())),
        }
    }
}

/// Characters of a text or name in a message.
const SHOWN: usize = 80;

/// The text, or its start; names come from the file and may be as long as that.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The same in quotes, with control characters escaped.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}
