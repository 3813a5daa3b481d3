//! `qwen2vl model fetch`: a model from its name, address, repository or zip; prints where it lies.

use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use qwen2vl_fetch::{Fetched, Fetcher, Progress, Reference};

use crate::args::ModelFetchArgs;
use crate::model::fetch_options;
use crate::output::{print_json, print_text};

/// Between two lines about a transfer where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Runs the command; the exit code.
pub fn run(args: &ModelFetchArgs) -> Result<u8> {
    let reference = Reference::parse(&args.model)?;
    let mut options = fetch_options(&args.source)?;
    options.sha256.clone_from(&args.sha256);
    options.md5.clone_from(&args.md5);
    let mut display = Display::new();
    let fetched = Fetcher::new(options)?.fetch(&reference, &mut |progress| display.show(&progress));
    display.clear();
    let fetched = fetched?;
    eprintln!("{}", summary(&fetched));
    if args.json {
        print_json(&serde_json::to_value(&fetched)?)?;
    } else {
        print_text(&format!("{}\n", fetched.path.display()))?;
    }
    Ok(0)
}

fn summary(fetched: &Fetched) -> String {
    let Fetched { name, bytes, .. } = fetched;
    let mut text = match fetched.downloaded_bytes {
        _ if fetched.already_there => format!("{name} is there already, {}", HumanBytes(*bytes)),
        Some(downloaded) => {
            format!("{name}: {} downloaded, {} on the disk", HumanBytes(downloaded), HumanBytes(*bytes))
        }
        None => format!("{name}: unpacked, {}", HumanBytes(*bytes)),
    };
    for (checked, kind) in [(fetched.md5_checked, "MD5"), (fetched.sha256_checked, "SHA-256")] {
        if checked {
            text.push_str(&format!(", {kind} right"));
        }
    }
    text
}

/// A bar on a terminal, lines now and then elsewhere.
pub struct Display {
    bar: ProgressBar,
    file: String,
    /// Whether something else than a transfer is shown.
    stepped: bool,
    last_line: Option<Instant>,
}

impl Display {
    /// Nothing is shown until something happens.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, file: String::new(), stepped: false, last_line: None }
    }

    /// Shows a step.
    pub fn show(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Transfer { file, done_bytes, total_bytes, bytes_per_second, remaining } => {
                let rate = format!("{}/s", HumanBytes(*bytes_per_second as u64));
                let left = remaining.map(|r| format!(", {:#} left", HumanDuration(r))).unwrap_or_default();
                self.transfer(file, *done_bytes, *total_bytes, &format!("{rate}{left}"));
            }
            Progress::Note(text) => self.line(text),
            Progress::Waiting => self.line("another process is fetching this model: waiting for it"),
            Progress::Retrying { reason, wait } => {
                self.line(&format!("{reason}; trying again in {:.1} s", wait.as_secs_f64()));
            }
            Progress::Checking => self.step("checking"),
            Progress::Unpacking => self.step("unpacking"),
            _ => {}
        }
    }

    fn transfer(&mut self, file: &str, done: u64, total: Option<u64>, rate: &str) {
        if self.bar.is_hidden() {
            let new = self.file != file;
            if new || self.last_line.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) || Some(done) == total {
                let of = total.map(|t| format!(" of {}", HumanBytes(t))).unwrap_or_default();
                eprintln!("{file}: {}{of}, {rate}", HumanBytes(done));
                self.last_line = Some(Instant::now());
            }
        } else {
            if self.file != file || self.stepped {
                self.start_bar(file, total.is_some());
            }
            // Set before the position, so that no picture in between is drawn.
            self.bar.set_message(rate.to_owned());
            self.bar.update(|state| {
                state.set_len(total.unwrap_or(done));
                state.set_pos(done);
            });
        }
        file.clone_into(&mut self.file);
    }

    fn start_bar(&mut self, file: &str, has_total: bool) {
        let template = match has_total {
            true => "{prefix} {wide_bar} {bytes}/{total_bytes} {msg}",
            false => "{prefix} {spinner} {bytes} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.disable_steady_tick();
        self.bar.set_prefix(shortened(file));
        self.stepped = false;
    }

    fn step(&mut self, what: &str) {
        if self.bar.is_hidden() {
            return;
        }
        self.stepped = true;
        self.bar.reset_elapsed();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            self.bar.set_style(style);
        }
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(200));
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Takes the bar off the terminal.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Names of files are long, terminals are not.
fn shortened(file: &str) -> String {
    const LENGTH: usize = 20;
    if file.chars().count() <= LENGTH {
        return file.to_owned();
    }
    let start: String = file.chars().take(LENGTH - 1).collect();
    format!("{start}…")
}
