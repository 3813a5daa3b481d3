//! From what was typed to a list of things to annotate: files, folders, globs, JSONL rows.

use std::path::{Path, PathBuf};

use qwen2vl_pipeline::{Error, ImageInput, RequestOptions, VideoInput};
use serde::Deserialize;
use serde_json::{Map, Value};
use walkdir::WalkDir;

use crate::columns::Columns;

/// What a folder is searched for.
const IMAGE_EXTENSIONS: &[&str] = &["jpg", "jpeg", "png", "gif", "bmp", "tif", "tiff", "webp"];

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
    /// Images.
    pub images: Vec<ImageInput>,
    /// Videos.
    pub videos: Vec<VideoInput>,
    /// A prompt of its own.
    pub prompt: Option<String>,
    /// Options of its own.
    pub options: RequestOptions,
    /// The other fields of a table's row; `None` where there is no table.
    pub columns: Option<Columns>,
}

/// A JSONL row.
#[derive(Debug, Deserialize)]
struct Row {
    image: Option<OneOrMany>,
    video: Option<OneOrMany>,
    prompt: Option<String>,
    #[serde(default)]
    options: Map<String, Value>,
    #[serde(flatten)]
    columns: Columns,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
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
    // A file whose name has a bracket in it is a file.
    if path.exists() || !argument.contains(['*', '?', '[']) {
        return vec![image(path.to_owned())];
    }
    pattern(argument)
}

fn image(path: PathBuf) -> Item {
    Item {
        name: path.display().to_string().into(),
        content: Ok(Content { images: vec![path.into()], ..Content::default() }),
    }
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
            Ok(entry) if entry.file_type().is_file() && has_extension(entry.path(), IMAGE_EXTENSIONS) => {
                items.push(image(entry.into_path()));
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
            format!("no images in this folder (looked for {})", IMAGE_EXTENSIONS.join(", ")),
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
        .map(|path| match path {
            Ok(path) => image(path),
            Err(error) => failed(error.path().display().to_string(), error.error().to_string()),
        })
        .collect();
    if items.is_empty() { vec![failed(argument, "no file matches this pattern")] } else { items }
}

fn table(argument: &str) -> Vec<Item> {
    let text = match std::fs::read_to_string(argument) {
        Ok(text) => text,
        Err(error) => return vec![failed(argument, error.to_string())],
    };
    let folder = Path::new(argument).parent().unwrap_or(Path::new(""));
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            let place = format!("{argument}:{}", i + 1);
            match serde_json::from_str::<Row>(line) {
                Ok(row) => table_row(row, &place, folder),
                Err(error) => {
                    failed(place, format!("not a row of {{\"image\", \"video\", \"prompt\"}}: {error}"))
                }
            }
        })
        .collect()
}

fn table_row(row: Row, place: &str, folder: &Path) -> Item {
    let resolve = |path: &String| ImageInput::from(beside(path, folder));
    let options = match RequestOptions::from_named(&row.options) {
        Ok(options) => options,
        Err(error) => return Item { name: place.into(), content: Err(error) },
    };
    let mut content =
        Content { prompt: row.prompt, options, columns: Some(row.columns), ..Content::default() };
    let mut name = None;
    match row.image {
        Some(OneOrMany::One(path)) => {
            content.images.push(resolve(&path));
            name = Some(path.into());
        }
        Some(OneOrMany::Many(paths)) => {
            content.images.extend(paths.iter().map(resolve));
            name = Some(paths.into());
        }
        None => {}
    }
    match row.video {
        Some(OneOrMany::Many(frames)) => {
            content.videos.push(frames.iter().map(resolve).collect());
            name = name.or_else(|| Some(frames.into()));
        }
        Some(OneOrMany::One(path)) => {
            return failed(path, "video files are not read; give the video as a list of frames");
        }
        None => {}
    }
    Item { name: name.unwrap_or_else(|| place.into()), content: Ok(content) }
}

/// A path as it is if it leads to something, else seen from the table's folder.
fn beside(path: &str, folder: &Path) -> PathBuf {
    let seen_from_table = folder.join(path);
    if Path::new(path).exists() || !seen_from_table.exists() { path.into() } else { seen_from_table }
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
    fn table_rows_keep_their_names_prompts_and_errors() {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("t.jsonl");
        std::fs::write(dir.path().join("x.png"), "").unwrap();
        let rows = [
            r#"{"image": "x.png", "prompt": "What?"}"#,
            "",
            r#"{"image": ["x.png", "y.png"]}"#,
            r#"{"video": ["x.png", "x.png"]}"#,
            r#"{"prompt": "Hello"}"#,
            r#"{"video": "clip.mp4"}"#,
            r#"{"image": 5}"#,
            r#"{"image": "x.png", "options": {"maxOutputLength": 7, "seed": null}}"#,
            r#"{"image": "x.png", "options": {"max_new_token": 7}}"#,
            r#"{"image": "x.png", "options": 7}"#,
        ];
        std::fs::write(&table, rows.join("\n")).unwrap();
        let items = expand(&[table.display().to_string()]);
        let place = |line: usize| format!("{}:{line}", table.display());
        assert_eq!(
            names(&items),
            [
                "x.png".to_owned(),
                r#"["x.png","y.png"]"#.to_owned(),
                r#"["x.png","x.png"]"#.to_owned(),
                place(5),
                "clip.mp4".to_owned(),
                place(7),
                "x.png".to_owned(),
                place(9),
                place(10),
            ]
        );
        let first = items[0].content.as_ref().unwrap();
        assert_eq!(first.prompt.as_deref(), Some("What?"));
        let ImageInput::Path(path) = &first.images[0] else { panic!("a path was given") };
        assert_eq!(path, &dir.path().join("x.png"));
        assert_eq!(items[2].content.as_ref().unwrap().videos[0].frames.len(), 2);
        assert!(items[4].content.as_ref().unwrap_err().to_string().contains("list of frames"));
        assert!(items[5].content.is_err() && items[8].content.is_err());
        assert_eq!(items[6].content.as_ref().unwrap().options.max_new_tokens, Some(7));
        let error = items[7].content.as_ref().unwrap_err();
        assert!(error.kind() == "options" && error.to_string().contains("max_new_tokens"), "{error}");
    }
}
