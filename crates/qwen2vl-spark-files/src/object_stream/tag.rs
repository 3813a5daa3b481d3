//! The tags of `java.io.ObjectStreamConstants`.

use crate::Reason;

pub(super) const NULL: u8 = 0x70;
pub(super) const REFERENCE: u8 = 0x71;
pub(super) const CLASS_DESC: u8 = 0x72;
pub(super) const OBJECT: u8 = 0x73;
pub(super) const STRING: u8 = 0x74;
pub(super) const ARRAY: u8 = 0x75;
pub(super) const CLASS: u8 = 0x76;
pub(super) const BLOCK_DATA: u8 = 0x77;
pub(super) const END_BLOCK_DATA: u8 = 0x78;
pub(super) const RESET: u8 = 0x79;
pub(super) const BLOCK_DATA_LONG: u8 = 0x7a;
pub(super) const EXCEPTION: u8 = 0x7b;
pub(super) const LONG_STRING: u8 = 0x7c;
pub(super) const PROXY_CLASS_DESC: u8 = 0x7d;
pub(super) const ENUM: u8 = 0x7e;

const NAMES: [&str; 15] = [
    "TC_NULL",
    "TC_REFERENCE",
    "TC_CLASSDESC",
    "TC_OBJECT",
    "TC_STRING",
    "TC_ARRAY",
    "TC_CLASS",
    "TC_BLOCKDATA",
    "TC_ENDBLOCKDATA",
    "TC_RESET",
    "TC_BLOCKDATALONG",
    "TC_EXCEPTION",
    "TC_LONGSTRING",
    "TC_PROXYCLASSDESC",
    "TC_ENUM",
];

/// Why `tag` is refused where `expected` should stand.
pub(super) fn refused(tag: u8, expected: &'static str) -> Reason {
    let name = tag.checked_sub(NULL).and_then(|index| NAMES.get(usize::from(index)).copied());
    let unsupported =
        |what, supported| Reason::Unsupported { what, name: name.unwrap_or_default().to_owned(), supported };
    match tag {
        PROXY_CLASS_DESC => unsupported("a dynamic proxy class", "ordinary classes"),
        EXCEPTION => {
            unsupported("an exception that ended the writing", "streams that were written completely")
        }
        _ => Reason::Tag { expected, found: name.map_or_else(|| format!("byte {tag:#04x}"), str::to_owned) },
    }
}
