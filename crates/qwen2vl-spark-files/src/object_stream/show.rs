//! `Debug` of values: like code, but cut off, because shared objects can make a tree of any size.

use std::cell::Cell;
use std::fmt;

use super::interpret::{quote, shorten};
use super::value::{Array, Elements, EnumConstant, Object, Value};

/// Values that one `{:?}` shows at most.
const SHOWN: usize = 256;

/// A value and how many more may be shown after it.
struct Shown<'a> {
    value: &'a Value,
    left: &'a Cell<usize>,
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.left.get() == 0 {
            return f.write_str("…");
        }
        self.left.set(self.left.get() - 1);
        match self.value {
            Value::Null => f.write_str("null"),
            Value::Bool(v) => v.fmt(f),
            Value::Byte(v) => v.fmt(f),
            Value::Char(v) => v.fmt(f),
            Value::Short(v) => v.fmt(f),
            Value::Int(v) => v.fmt(f),
            Value::Long(v) => v.fmt(f),
            Value::Float(v) => v.fmt(f),
            Value::Double(v) => v.fmt(f),
            Value::String(text) => f.write_str(&quote(text)),
            Value::Array(array) => show_array(array, f, self.left),
            Value::Object(object) => show_object(object, f, self.left),
            Value::Enum(constant) => constant.fmt(f),
            Value::Class(class) | Value::Descriptor(class) => write!(f, "class {}", shorten(class.name())),
        }
    }
}

/// Shows `items` while any may be shown.
fn show_items<T: fmt::Debug>(
    items: impl IntoIterator<Item = T>,
    f: &mut fmt::Formatter<'_>,
    left: &Cell<usize>,
) -> fmt::Result {
    let mut list = f.debug_list();
    for item in items {
        if left.get() == 0 {
            return list.finish_non_exhaustive();
        }
        left.set(left.get() - 1);
        list.entry(&item);
    }
    list.finish()
}

fn show_array(array: &Array, f: &mut fmt::Formatter<'_>, left: &Cell<usize>) -> fmt::Result {
    write!(f, "{} ", shorten(array.class().name()))?;
    show_elements(&array.elements, f, left)
}

fn show_elements(elements: &Elements, f: &mut fmt::Formatter<'_>, left: &Cell<usize>) -> fmt::Result {
    match elements {
        Elements::Bools(v) => show_items(v, f, left),
        Elements::Bytes(v) => show_items(v, f, left),
        Elements::Chars(v) => show_items(v, f, left),
        Elements::Shorts(v) => show_items(v, f, left),
        Elements::Ints(v) => show_items(v, f, left),
        Elements::Longs(v) => show_items(v, f, left),
        Elements::Floats(v) => show_items(v, f, left),
        Elements::Doubles(v) => show_items(v, f, left),
        Elements::Values(v) => show_items(v.iter().map(|value| Shown { value, left }), f, left),
    }
}

fn show_object(object: &Object, f: &mut fmt::Formatter<'_>, left: &Cell<usize>) -> fmt::Result {
    let mut shown = f.debug_struct(&shorten(object.class_name()));
    for (name, value) in object.fields() {
        if left.get() == 0 {
            return shown.finish_non_exhaustive();
        }
        shown.field(&shorten(name), &Shown { value, left });
    }
    shown.finish()
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Shown { value: self, left: &Cell::new(SHOWN) }.fmt(f)
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_array(self, f, &Cell::new(SHOWN))
    }
}

impl fmt::Debug for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_elements(self, f, &Cell::new(SHOWN))
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_object(self, f, &Cell::new(SHOWN))
    }
}

impl fmt::Debug for EnumConstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", shorten(self.class.name()), shorten(&self.name))
    }
}
