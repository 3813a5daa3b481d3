//! Values as text in the notation of tools/reference/JavaStreams.java.

use qwen2vl_spark_files::object_stream::{Array, Elements, Value};

/// The whole value as text. Only for values that the tests know to be small.
pub fn tree(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::String(text) => quote(text),
        Value::Array(array) => format!("{}[{}]", array.class().name(), items(array).join(", ")),
        Value::Object(object) => {
            let fields: Vec<String> =
                object.fields().map(|(name, value)| format!("{name}={}", tree(value))).collect();
            format!("{}{{{}}}", object.class_name(), fields.join(", "))
        }
        Value::Enum(constant) => format!("enum {}::{}", constant.class().name(), constant.name()),
        Value::Class(class) => format!("class {}", class.name()),
        Value::Descriptor(class) => format!("descriptor {}", class.name()),
        number => self::number(number),
    }
}

fn number(value: &Value) -> String {
    match value {
        Value::Bool(v) => format!("Z {v}"),
        Value::Byte(v) => format!("B {v}"),
        Value::Char(v) => format!("C {v}"),
        Value::Short(v) => format!("S {v}"),
        Value::Int(v) => format!("I {v}"),
        Value::Long(v) => format!("J {v}"),
        Value::Float(v) => format!("F {:x}", v.to_bits()),
        Value::Double(v) => format!("D {:x}", v.to_bits()),
        other => panic!("no number: {other:?}"),
    }
}

fn items(array: &Array) -> Vec<String> {
    if let Elements::Values(values) = array.elements() {
        return values.iter().map(tree).collect();
    }
    (0..array.len()).map(|i| number(&array.get(i).expect("an index below the length"))).collect()
}

/// JSON in ASCII.
fn quote(text: &str) -> String {
    let unit = |unit: u16| match char::from_u32(unit.into()) {
        Some(c @ ('"' | '\\')) => format!("\\{c}"),
        Some(c @ ' '..='~') => c.to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    format!("\"{}\"", text.encode_utf16().map(unit).collect::<String>())
}
