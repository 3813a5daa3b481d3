//! The parser's part for class descriptors and for what classes write by themselves.

use std::sync::Arc;

use super::class::{ClassDescriptor, ENUM, EXTERNALIZABLE, FieldDescriptor, FieldType, SERIALIZABLE};
use super::handles::{Entry, Tall};
use super::interpret::shorten;
use super::parser::Parser;
use super::tag;
use crate::{Error, Reason};

impl Parser<'_> {
    /// A class descriptor where the stream must have one.
    pub fn class(&mut self, depth: u32) -> Result<Arc<ClassDescriptor>, Error> {
        let offset = self.cursor.offset();
        let reason = Reason::Kind { expected: "a class descriptor", found: "null".to_owned() };
        self.class_or_null(depth)?.ok_or(Error::new(offset, reason))
    }

    fn class_or_null(&mut self, depth: u32) -> Result<Option<Arc<ClassDescriptor>>, Error> {
        let offset = self.cursor.offset();
        let expected = "a class descriptor";
        match self.cursor.u8("a tag")? {
            tag::NULL => Ok(None),
            tag::REFERENCE => match self.handle()? {
                Entry::Class(class) => Ok(Some(Arc::clone(class))),
                Entry::Value(Tall { value, .. }) => {
                    let found = value.describe();
                    Err(Error::new(offset, Reason::Kind { expected, found }))
                }
                Entry::Unfinished => unreachable!("the table refuses references to what is unfinished"),
            },
            tag::CLASS_DESC => self.new_class(offset, depth).map(Some),
            tag => Err(Error::new(offset, tag::refused(tag, expected))),
        }
    }

    /// A class descriptor after its tag.
    pub fn new_class(&mut self, offset: u64, depth: u32) -> Result<Arc<ClassDescriptor>, Error> {
        self.check_depth(offset, "the depth of the stream", depth)?;
        let slot = self.handles.assign();
        let name: Arc<str> = self.short_text("the name of a class")?.into();
        let serial_version_uid = self.cursor.u64("the version of a class")?;
        let flags = self.cursor.u8("the flags of a class")?;
        if flags & SERIALIZABLE != 0 && flags & EXTERNALIZABLE != 0 {
            return Err(class_error(offset, &name, "it is serializable and externalizable at once"));
        }
        let fields = self.fields(offset, &name)?;
        if flags & ENUM != 0 && !fields.is_empty() {
            return Err(class_error(offset, &name, "it is an enum and has fields"));
        }
        self.annotations(depth)?;
        let superclass = self.class_or_null(depth + 1)?;
        let height = superclass.as_ref().map_or(1, |class| class.height + 1);
        self.check_depth(offset, "superclasses above each other", height)?;
        let class = Arc::new(ClassDescriptor { name, serial_version_uid, flags, fields, superclass, height });
        self.handles.fill(slot, Entry::Class(Arc::clone(&class)));
        Ok(class)
    }

    fn fields(&mut self, class_at: u64, class: &str) -> Result<Vec<FieldDescriptor>, Error> {
        let count = self.cursor.u16("the number of fields")?;
        if count > i16::MAX as u16 {
            return Err(class_error(class_at, class, "it has more fields than Java allows"));
        }
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        for _ in 0..count {
            self.count_value()?;
            let offset = self.cursor.offset();
            let letter = self.cursor.u8("the type of a field")?;
            let Some(kind) = FieldType::from_letter(letter) else {
                let (what, allowed) = ("the type of a field", "one of B C D F I J S Z L [");
                return Err(Error::new(offset, Reason::OutOfRange { what, found: letter.into(), allowed }));
            };
            let name = self.short_text("the name of a field")?.into();
            let class_name = (kind == FieldType::Reference).then(|| self.string()).transpose()?;
            if kind != FieldType::Reference && fields.last().is_some_and(|f| f.kind == FieldType::Reference) {
                return Err(class_error(
                    class_at,
                    class,
                    "it has a field of a number after one of an object",
                ));
            }
            fields.push(FieldDescriptor { name, kind, class_name });
        }
        Ok(fields)
    }

    /// What a class wrote by itself, up to the end mark: parsed, because it may hold what is referred to later, and
    /// dropped.
    pub fn annotations(&mut self, depth: u32) -> Result<(), Error> {
        loop {
            match self.cursor.peek() {
                Some(tag::END_BLOCK_DATA) => return self.cursor.u8("a tag").map(|_| ()),
                Some(tag::BLOCK_DATA) => {
                    let [_, length] = self.cursor.array("block data")?;
                    self.cursor.take("block data", length.into())?;
                }
                Some(tag::BLOCK_DATA_LONG) => {
                    self.cursor.u8("a tag")?;
                    let length = self.cursor.count("the length of block data", i32::MAX as usize)?;
                    self.cursor.take("block data", length as u64)?;
                }
                _ => drop(self.content(depth)?),
            }
        }
    }
}

pub(super) fn class_error(offset: u64, class: &str, problem: &'static str) -> Error {
    Error::new(offset, Reason::Class { class: shorten(class), problem })
}
