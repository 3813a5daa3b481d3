//! From what was typed to a list of things to annotate: files, folders, globs, JSONL rows.

mod table;

use std::path::{Path, PathBuf};

use qwen2vl_pipeline::{
    DecodeOptions, Error, ImageInput, ImageSizing, RequestOptions, VideoInput, count_pdf_pages,
};
use serde_json::Value;
use walkdir::WalkDir;

use crate::columns::Columns;
use table::table;

/// What a folder is searched for: what this build reads.
const IMAGE_EXTENSIONS: &[&str] = &[
    "jpg",
    "jpeg",
    "png",
    "apng",
    "gif",
    "bmp",
    "tif",
    "tiff",
    "webp",
    #[cfg(feature = "pdf")]
    "pdf",
    #[cfg(feature = "heif")]
    "heic",
    #[cfg(feature = "heif")]
    "heif",
    #[cfg(feature = "heif")]
    "avif",
];

/// What is taken for a video file, and what a folder is searched for as well.
const VIDEO_EXTENSIONS: &[&str] = &[
    "mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts", "wmv", "flv", "3gp", "ogv",
];

/// One thing to annotate, or why it cannot be.
#[derive(Debug)]
pub struct Item {
    /// How it is named in results.
    pub name: Value,
    /// Its media and its own prompt, or what is wrong with it.
    pub content: Result<Content, Error>,
}

/// Media and prompt of an item.
#[derive(Debug, Default)]
pub struct Content {
    /// Images, with sizes of their own.
    pub images: Vec<(ImageInput, ImageSizing)>,
    /// Videos.
    pub videos: Vec<VideoInput>,
    /// A prompt of its own.
    pub prompt: Option<String>,
    /// Options of its own.
    pub options: RequestOptions,
    /// The other fields of a table's row; `None` where there is no table.
    pub columns: Option<Columns>,
}

/// Whether an argument is a table rather than an image.
pub fn is_table(argument: &str) -> bool {
    has_extension(Path::new(argument), &["jsonl"])
}

/// Expands the arguments, in order; folders and patterns sorted by name. What does not exist becomes an item with an
/// error, so that it gets its row like everything else.
pub fn expand(arguments: &[String]) -> Vec<Item> {
    arguments.iter().flat_map(|argument| expand_one(argument)).collect()
}

fn expand_one(argument: &str) -> Vec<Item> {
    let path = Path::new(argument);
    if path.is_dir() {
        return folder(argument);
    }
    if is_table(argument) {
        return table(argument);
    }
    if path.exists() {
        return images(path.to_owned());
    }
    if let Some((path, ranges)) = argument.rsplit_once("#pages=") {
        return pages_of(path, ranges);
    }
    let input = ImageInput::from(argument);
    match &input {
        // A file whose name has a bracket in it is a file.
        ImageInput::Path(path) if argument.contains(['*', '?', '[']) && !path.exists() => pattern(argument),
        ImageInput::Path(path) => images(path.clone()),
        _ => vec![image(input)],
    }
}

fn image(input: ImageInput) -> Item {
    Item {
        name: input.name().into(),
        content: Ok(Content { images: vec![(input, ImageSizing::default())], ..Content::default() }),
    }
}

/// The image or video of a file, or the pages of a PDF.
fn images(path: PathBuf) -> Vec<Item> {
    if has_extension(&path, VIDEO_EXTENSIONS) {
        let name = path.display().to_string().into();
        return vec![Item {
            name,
            content: Ok(Content { videos: vec![VideoInput::file(path)], ..Content::default() }),
        }];
    }
    if !has_extension(&path, &["pdf"]) || !path.exists() {
        return vec![image(path.into())];
    }
    match n_pages(&path) {
        Ok(n_pages) => {
            (1..=n_pages).map(|page| image(ImageInput::PdfPage { path: path.clone(), page })).collect()
        }
        Err(reason) => vec![failed(path.display().to_string(), reason)],
    }
}

/// The number of pages of a PDF, or what is wrong with it.
fn n_pages(path: &Path) -> Result<u32, String> {
    count_pdf_pages(path, &DecodeOptions::default()).map_err(|error| match error {
        Error::Io { source, .. } => source.to_string(),
        Error::Image { source, .. } => source.to_string(),
        other => other.to_string(),
    })
}

/// The named pages of a PDF, in the order in which they are named: `3`, `1-3,7` or `5-`.
fn pages_of(path: &str, ranges: &str) -> Vec<Item> {
    let name = format!("{path}#pages={ranges}");
    let path = Path::new(path);
    let pages = n_pages(path).and_then(|n_pages| parse_pages(ranges, n_pages));
    let page = |page| image(ImageInput::PdfPage { path: path.to_owned(), page });
    match pages {
        Ok(pages) => pages.into_iter().map(page).collect(),
        Err(message) => vec![failed(name, message)],
    }
}

fn parse_pages(ranges: &str, n_pages: u32) -> Result<Vec<u32>, String> {
    let mut pages = Vec::new();
    for range in ranges.split(',').map(str::trim) {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let ends = match range.split_once('-') {
            Some((first, "")) => number(first).map(|first| (first, n_pages.max(first))),
            Some((first, last)) => number(first).zip(number(last)),
            None => number(range).map(|page| (page, page)),
        };
        let Some((first, last)) = ends.filter(|(first, last)| first <= last) else {
            return Err(format!("{range:?} is no page and no range of pages, as in #pages=1-3,7"));
        };
        if first == 0 || last > n_pages {
            let page = if first == 0 { 0 } else { last };
            return Err(format!("there is no page {page}: the PDF has pages 1 to {n_pages}"));
        }
        pages.extend(first..=last);
    }
    Ok(pages)
}

impl Item {
    /// Its name as a text.
    pub fn input(&self) -> String {
        self.name.as_str().map_or_else(|| self.name.to_string(), str::to_owned)
    }
}

fn failed(name: impl Into<Value>, message: impl Into<String>) -> Item {
    let item = Item { name: name.into(), content: Ok(Content::default()) };
    let (input, reason) = (item.input(), message.into());
    Item { content: Err(Error::Source { input, reason }), ..item }
}

fn folder(argument: &str) -> Vec<Item> {
    let mut items = Vec::new();
    for entry in WalkDir::new(argument).follow_links(true).sort_by_file_name() {
        match entry {
            Ok(entry)
                if entry.file_type().is_file()
                    && [IMAGE_EXTENSIONS, VIDEO_EXTENSIONS]
                        .iter()
                        .any(|e| has_extension(entry.path(), e)) =>
            {
                items.extend(images(entry.into_path()));
            }
            Ok(_) => {}
            Err(error) => {
                let name = error.path().map_or_else(|| argument.to_owned(), |p| p.display().to_string());
                items.push(failed(name, error.to_string()));
            }
        }
    }
    if items.is_empty() {
        items.push(failed(
            argument,
            format!(
                "no images or videos in this folder (looked for {}, {})",
                IMAGE_EXTENSIONS.join(", "),
                VIDEO_EXTENSIONS.join(", ")
            ),
        ));
    }
    items
}

fn pattern(argument: &str) -> Vec<Item> {
    let paths = match glob::glob(argument) {
        Ok(paths) => paths,
        Err(error) => return vec![failed(argument, format!("not a valid pattern: {error}"))],
    };
    let items: Vec<Item> = paths
        .filter(|path| !path.as_ref().is_ok_and(|p| p.is_dir()))
        .flat_map(|path| match path {
            Ok(path) => images(path),
            Err(error) => vec![failed(error.path().display().to_string(), error.error().to_string())],
        })
        .collect();
    if items.is_empty() { vec![failed(argument, "no file matches this pattern")] } else { items }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| extensions.iter().any(|x| x.eq_ignore_ascii_case(e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(items: &[Item]) -> Vec<String> {
        items.iter().map(Item::input).collect()
    }

    #[test]
    fn folders_patterns_and_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        std::fs::create_dir(path("sub")).unwrap();
        for name in ["b.PNG", "a.jpg", "notes.txt", "sub/c.webp", "odd[1].png"] {
            std::fs::write(path(name), "").unwrap();
        }
        let folder = expand(&[dir.path().display().to_string()]);
        assert_eq!(names(&folder), ["a.jpg", "b.PNG", "odd[1].png", "sub/c.webp"].map(path));
        assert_eq!(names(&expand(&[path("*.jpg"), path("odd[1].png")])), ["a.jpg", "odd[1].png"].map(path));
        // Named files are taken whatever they are called; missing ones fail when they are read.
        assert!(expand(&[path("notes.txt")])[0].content.is_ok());

        std::fs::create_dir(path("empty")).unwrap();
        for argument in [path("empty"), path("*.gif"), path("[")] {
            let items = expand(std::slice::from_ref(&argument));
            assert!(items.len() == 1 && (items[0].content.is_err() || argument.ends_with('[')), "{argument}");
        }
    }

    #[test]
    fn pages_are_chosen_in_order() {
        for (ranges, want) in [
            ("3", Ok(vec![3])),
            ("1-3,7", Ok(vec![1, 2, 3, 7])),
            ("5-", Ok(vec![5, 6, 7, 8])),
            ("8, 1", Ok(vec![8, 1])),
            ("9", Err("there is no page 9: the PDF has pages 1 to 8")),
            ("9-", Err("there is no page 9")),
            ("0-2", Err("there is no page 0")),
            ("2-99999999", Err("there is no page 99999999")),
            ("3-1", Err("\"3-1\" is no page")),
            ("", Err("\"\" is no page")),
            ("a", Err("as in #pages=1-3,7")),
            ("-3", Err("\"-3\" is no page")),
        ] {
            match (parse_pages(ranges, 8), want) {
                (Ok(pages), Ok(want)) => assert_eq!(pages, want, "{ranges}"),
                (Err(error), Err(want)) => assert!(error.contains(want), "{ranges}: {error}"),
                (got, want) => panic!("{ranges}: {got:?}, want {want:?}"),
            }
        }
    }

    #[test]
    fn sources_of_other_kinds_keep_their_names() {
        let data = format!("data:image/png;base64,{}", "A".repeat(100_000));
        let items = expand(&["a.pdf#page=3".to_owned(), data.clone(), "http://h/a.png".to_owned()]);
        let [page, inline, remote] = &names(&items)[..] else { panic!("three arguments, three items") };
        assert_eq!((page.as_str(), remote.as_str()), ("a.pdf#page=3", "http://h/a.png"));
        assert!(inline.starts_with("data:image/png;base64,AAAA") && inline.len() < 200, "{inline}");
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("t.jsonl");
        std::fs::write(dir.path().join("a b.png"), "").unwrap();
        let row = serde_json::json!({ "image": [data, "a b.png", "file:a%20b.png"] });
        std::fs::write(&table, row.to_string()).unwrap();
        let items = expand(&[table.display().to_string()]);
        assert!(names(&items)[0].len() < 300, "{:?}", items[0].name);
        let images = &items[0].content.as_ref().unwrap().images;
        for image in &images[1..] {
            assert_eq!(image.0.file(), Some(dir.path().join("a b.png").as_path()));
        }
    }
}
