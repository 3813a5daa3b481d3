//! Files about the boxes in answers: drawings, COCO, YOLO. What cannot be written is said and counted; the answers go
//! on without it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use qwen2vl_pipeline::{
    Annotation, Annotator, AnswerBox, Coco, Content, ContentPart, Error, ImageInput, ImageSize, MediaInfo,
    PromptInput, Request, VideoContent, VideoInput, VideoSource, YoloClasses, draw_boxes, encode_png,
};

use crate::args::{AnnotateArgs, BoxArgs};
use crate::files::{self, Names};

/// Where boxes go.
pub struct BoxFiles {
    asked: bool,
    /// Files that are read, or written by something else.
    others: HashSet<PathBuf>,
    draw: Option<Names>,
    yolo: Option<Yolo>,
    coco: Option<(PathBuf, Coco)>,
    problems: Problems,
}

/// Said when they come, counted for the exit code.
#[derive(Default)]
struct Problems(usize);

struct Yolo {
    names: Names,
    classes: YoloClasses,
    classes_file: PathBuf,
    /// Classes that it has.
    n_written: usize,
    /// The file of each image so far.
    files: HashMap<String, PathBuf>,
}

impl BoxFiles {
    /// Makes the folders.
    pub fn open<'r>(args: &AnnotateArgs, requests: impl IntoIterator<Item = &'r Request>) -> Result<Self> {
        let BoxArgs { draw, boxes, yolo, .. } = &args.boxes;
        let mut files = Self {
            asked: args.boxes.is_asked(),
            others: HashSet::new(),
            draw: None,
            yolo: None,
            coco: None,
            problems: Problems::default(),
        };
        if !files.asked {
            return Ok(files);
        }
        let paths = requests.into_iter().flat_map(paths).chain(args.bulk.inputs.iter().map(PathBuf::from));
        let written = args.bulk.output.iter().chain(&args.bulk.prompt.messages).cloned();
        files.others = paths.chain(written).map(|path| files::real(&path)).collect();
        if let Some(path) = boxes {
            files.check_own("--boxes", path)?;
            files.problems.check(path, &files::check_writable(path));
            files.coco = Some((path.clone(), Coco::default()));
            files.others.insert(files::real(path));
        }
        if let Some(folder) = yolo {
            let classes_file = folder.join("classes.txt");
            files.check_own("--yolo", &classes_file)?;
            if files.problems.check(folder, &fs::create_dir_all(folder)) {
                let names = Names::new(folder, ".txt", &["classes.txt"]);
                files.yolo = Some(Yolo {
                    names,
                    classes: YoloClasses::default(),
                    classes_file,
                    n_written: 0,
                    files: HashMap::new(),
                });
            }
        }
        if let Some(folder) = draw
            && files.problems.check(folder, &fs::create_dir_all(folder))
        {
            files.draw = Some(Names::new(folder, ".boxes.png", &[]));
        }
        Ok(files)
    }

    fn check_own(&self, flag: &str, path: &Path) -> Result<()> {
        let other = self.others.contains(&files::real(path));
        ensure!(!other, "{flag} would overwrite {}, which is read or written by this run", path.display());
        Ok(())
    }

    /// Writes what there is to write about an answer. `images` are those of its request.
    pub fn add(&mut self, annotator: &Annotator, images: &[ImageInput], annotation: &Annotation) {
        if !self.asked {
            return;
        }
        let boxes = annotation.boxes.as_ref();
        for malformed in boxes.iter().flat_map(|b| &b.malformed) {
            let input = annotation.media.first().map_or("the answer", |m| &m.input);
            eprintln!("note: {input}: no box: {:?}: {}", malformed.text, malformed.reason);
        }
        for (index, info) in annotation.media.iter().enumerate() {
            let own: Vec<&AnswerBox> = boxes.iter().flat_map(|b| b.of_image(index)).collect();
            if info.is_video {
                if !own.is_empty() {
                    eprintln!("note: {}: boxes in a video are in its row alone", info.input);
                }
                continue;
            }
            let image = images.get(index).cloned().unwrap_or_else(|| ImageInput::from(info.input.as_str()));
            self.add_image(annotator, &image, info, &own);
        }
    }

    fn add_image(
        &mut self,
        annotator: &Annotator,
        image: &ImageInput,
        info: &MediaInfo,
        boxes: &[&AnswerBox],
    ) {
        if let Some((_, coco)) = &mut self.coco {
            coco.add(&info.input, info.size, boxes.iter().copied());
        }
        if let Some(yolo) = &mut self.yolo {
            let (path, written) = yolo.write(&info.input, info.size, boxes, &self.others);
            self.problems.check(&path, &written);
        }
        if let Some(names) = &mut self.draw {
            let path = names.next(Path::new(&info.input), &self.others);
            let written = annotator.processor().decode(image).map_err(io::Error::other).and_then(|pixels| {
                let drawn = draw_boxes(pixels, boxes.iter().copied());
                files::write_whole(&path, |file| encode_png(&drawn, file))
            });
            self.problems.check(&path, &written);
        }
    }

    /// Writes what can only be written at the end; how many files could not be written, all in all.
    pub fn finish(mut self) -> usize {
        if let Some((path, coco)) = &self.coco {
            let written = files::write_whole(path, |file| {
                serde_json::to_writer(&mut *file, coco).map_err(io::Error::from)?;
                file.write_all(b"\n")
            });
            self.problems.check(path, &written);
        }
        self.problems.0
    }
}

impl Problems {
    /// Whether it went well.
    fn check(&mut self, path: &Path, result: &io::Result<()>) -> bool {
        if let Err(error) = result {
            eprintln!("error: cannot write {}: {error}; the answers are not affected", path.display());
            self.0 += 1;
        }
        result.is_ok()
    }
}

impl Yolo {
    /// Writes an image's boxes, behind those of the same image from before; the file, and how it went.
    fn write(
        &mut self,
        input: &str,
        size: ImageSize,
        boxes: &[&AnswerBox],
        others: &HashSet<PathBuf>,
    ) -> (PathBuf, io::Result<()>) {
        let lines: String = boxes.iter().map(|one| self.classes.line(one, size) + "\n").collect();
        let names = self.classes.names();
        if names.len() > self.n_written {
            // Before the lines that need it.
            let text = names.join("\n") + "\n";
            let written = files::write_whole(&self.classes_file, |file| file.write_all(text.as_bytes()));
            if written.is_err() {
                return (self.classes_file.clone(), written);
            }
            self.n_written = names.len();
        }
        let before = self.files.get(input).cloned();
        let path = before.clone().unwrap_or_else(|| self.names.next(Path::new(input), others));
        let written = before.map_or(Ok(String::new()), fs::read_to_string).and_then(|text| {
            let text = text + &lines;
            files::write_whole(&path, |file| file.write_all(text.as_bytes()))
        });
        if written.is_ok() {
            self.files.insert(input.to_owned(), path.clone());
        }
        (path, written)
    }
}

/// Files that a request reads.
fn paths(request: &Request) -> Vec<PathBuf> {
    let frames = request.videos.iter().flat_map(VideoInput::images);
    let files = request.videos.iter().filter_map(|video| match &video.content {
        VideoContent::File(path) => Some(path.clone()),
        _ => None,
    });
    let given = request.images.iter().chain(frames).filter_map(|input| input.file().map(Path::to_owned));
    let messages = match &request.prompt {
        PromptInput::Messages(messages) => messages.as_slice(),
        _ => &[],
    };
    let parts = messages.iter().flat_map(|message| match &message.content {
        Content::Parts(parts) => parts.as_slice(),
        Content::Text(_) => &[],
    });
    let named = parts.flat_map(|part| match part {
        ContentPart::Image(image) => image.source.iter().cloned().collect(),
        ContentPart::Video(video) => match &video.source {
            VideoSource::Frames(frames) => frames.clone(),
            VideoSource::File(file) => vec![file.clone()],
            VideoSource::None => Vec::new(),
        },
        _ => Vec::new(),
    });
    let local = |source: String| ImageInput::from(source).file().map(Path::to_owned);
    given.chain(files).chain(named.filter_map(local)).collect()
}

/// The images of each request, for when its answer is there.
pub fn images_of(requests: &[Result<Request, Error>]) -> Vec<Vec<ImageInput>> {
    requests.iter().map(|r| r.as_ref().map(images_in_order).unwrap_or_default()).collect()
}

/// Those that messages name, between those that are given apart.
fn images_in_order(request: &Request) -> Vec<ImageInput> {
    let PromptInput::Messages(messages) = &request.prompt else { return request.images.clone() };
    let mut given = request.images.iter().cloned();
    let parts = messages.iter().flat_map(|message| match &message.content {
        Content::Parts(parts) => parts.as_slice(),
        Content::Text(_) => &[],
    });
    let images = parts.filter_map(|part| match part {
        ContentPart::Image(image) => Some(&image.source),
        _ => None,
    });
    images.filter_map(|source| source.as_deref().map(ImageInput::from).or_else(|| given.next())).collect()
}
