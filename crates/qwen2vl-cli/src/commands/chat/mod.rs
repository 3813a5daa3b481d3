//! `qwen2vl chat`: a conversation in the terminal, or of lines that a program writes.

mod line;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use qwen2vl_pipeline::{
    Annotation, Annotator, CancelToken, Content, ContentPart, Conversation, FinishReason, Message, Request,
    RequestOptions,
};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};

use crate::args::ChatArgs;
use crate::interrupt::Interrupt;
use crate::model::{self, Limits};
use crate::{SOME_FAILED, output};
use line::Line;

/// Runs the command; the exit code.
pub fn run(args: &ChatArgs) -> Result<u8> {
    let interrupt = Interrupt::listen("stopped")?;
    let package = model::package(&args.model)?;
    let mut options = RequestOptions::default();
    options.add_vision_id = Some(args.add_vision_id);
    args.generation.fill(&mut options);
    options.validate(&package)?;
    let max_pixels = package.preprocess.pixel_limits.max_pixels;
    let limits = Limits::apply(&args.limits, &args.model.engine.device, max_pixels, &mut options);
    let annotator = model::builder(package, &args.model.engine).pdf_dpi(args.pdf.dpi).build()?;
    let mut conversation = annotator.conversation()?;
    if let Some(system) = &args.system {
        conversation = conversation.system(system);
    }
    let mut chat = Chat { annotator: &annotator, conversation, options, limits, pictures: Vec::new() };
    let mut failed = false;
    for image in &args.images {
        chat.show(image.display().to_string())?;
    }

    let mut lines = Lines::open()?;
    if lines.are_typed {
        eprintln!("Ask, or /help. The model is {}.", annotator.processor().package().name);
    }
    while let Some(line) = lines.next()? {
        let taken = chat.take(&line, &interrupt.begin());
        interrupt.end();
        match taken {
            Ok(Next::More) => {}
            Ok(Next::End) => break,
            Err(error) if output::is_broken_pipe(&error) => return Err(error),
            Err(error) => {
                eprintln!("error: {error:#}");
                failed = true;
            }
        }
    }
    // Whoever types has seen the error.
    Ok(if failed && !lines.are_typed { SOME_FAILED } else { 0 })
}

enum Next {
    More,
    End,
}

struct Chat<'a> {
    annotator: &'a Annotator,
    conversation: Conversation<'a>,
    options: RequestOptions,
    limits: Limits,
    /// For the next question.
    pictures: Vec<String>,
}

impl Chat<'_> {
    fn take(&mut self, line: &str, cancel: &CancelToken) -> Result<Next> {
        match Line::parse(line) {
            Line::Empty => {}
            Line::Question(question) => self.ask(question, cancel)?,
            Line::Image(path) => self.show(path)?,
            Line::Reset => {
                self.conversation.reset();
                self.pictures.clear();
                eprintln!("forgotten");
            }
            Line::Save(path) => self.save(Path::new(&path))?,
            Line::Help => eprint!("{}", line::help()),
            Line::Quit => return Ok(Next::End),
            Line::Unknown(said) => anyhow::bail!(said),
        }
        Ok(Next::More)
    }

    /// Keeps a picture for the next question; one that cannot be read is refused now.
    fn show(&mut self, picture: String) -> Result<()> {
        let size = self.annotator.processor().decode(&picture.as_str().into())?.size();
        let plan = self.annotator.processor().plan(size, &self.options)?;
        if let Some(notice) = self.limits.notice(size) {
            eprintln!("{notice}");
        }
        eprintln!("{}x{}, {} tokens, goes with the next question", size.width, size.height, plan.tokens);
        self.pictures.push(picture);
        Ok(())
    }

    fn ask(&mut self, question: String, cancel: &CancelToken) -> Result<()> {
        let pictures = self.pictures.iter().map(ContentPart::image);
        let parts = pictures.chain([ContentPart::Text(question)]).collect();
        let message = Message { role: "user".to_owned(), content: Content::Parts(parts) };
        let turn = Request::messages([message]).options(self.options.clone());
        let mut stdout = io::stdout().lock();
        let mut written = Ok(());
        let answer = self.conversation.ask_stream(&turn, cancel, |delta| {
            written = stdout.write_all(delta.as_bytes()).and_then(|()| stdout.flush());
            if written.is_ok() {
                std::ops::ControlFlow::Continue(())
            } else {
                std::ops::ControlFlow::Break(())
            }
        });
        written.context("cannot write to stdout")?;
        let answer = answer?;
        writeln!(stdout).context("cannot write to stdout")?;
        for warning in &answer.warnings {
            eprintln!("warning: {warning}");
        }
        // A turn that was taken back leaves its pictures for the next question.
        if answer.finish_reason != FinishReason::Cancelled || !answer.token_ids.is_empty() {
            self.pictures.clear();
        }
        if io::stderr().is_terminal() {
            eprintln!("{}", summary(&answer));
        }
        Ok(())
    }

    /// The file is whole or not there.
    fn save(&self, path: &Path) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(self.conversation.messages())?;
        json.push(b'\n');
        crate::files::write_whole(path, |file| file.write_all(&json))
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{} messages written", self.conversation.messages().len());
        Ok(())
    }
}

fn summary(answer: &Annotation) -> String {
    let seconds = (answer.times.vision + answer.times.prefill + answer.times.generate).as_secs_f64();
    let ended = match answer.finish_reason {
        FinishReason::Stop => "",
        FinishReason::Length => ", cut by --max-new-tokens",
        FinishReason::Cancelled => ", stopped",
    };
    format!(
        "[{} tokens in, {} of them known; {} out; {seconds:.1} s{ended}]",
        answer.prompt_tokens,
        answer.cached_tokens,
        answer.token_ids.len()
    )
}

/// Lines as they are typed, with editing and history, or as a program writes them.
struct Lines {
    editor: Editor<(), MemHistory>,
    are_typed: bool,
}

impl Lines {
    fn open() -> Result<Self> {
        let config = Config::builder().auto_add_history(true).build();
        let editor =
            Editor::with_history(config, MemHistory::new()).context("cannot read from the terminal")?;
        Ok(Self { editor, are_typed: io::stdin().is_terminal() })
    }

    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<String>> {
        if !self.are_typed {
            let mut line = String::new();
            let read = io::stdin().read_line(&mut line).context("cannot read stdin")?;
            return Ok((read > 0).then_some(line));
        }
        match self.editor.readline("> ") {
            Ok(line) => Ok(Some(line)),
            Err(ReadlineError::Interrupted) => {
                eprintln!("/quit or Ctrl-D ends");
                Ok(Some(String::new()))
            }
            Err(ReadlineError::Eof) => Ok(None),
            Err(error) => Err(error).context("cannot read from the terminal"),
        }
    }
}
