//! What a line typed into a chat means.

/// A line.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Something to ask.
    Question(String),
    /// `/image PATH`: a picture for the next question.
    Image(String),
    /// `/reset`: forget what was said.
    Reset,
    /// `/save FILE`: write what was said.
    Save(String),
    /// `/help`.
    Help,
    /// `/quit`.
    Quit,
    /// Nothing.
    Empty,
    /// A command that is none, and what to say about it.
    Unknown(String),
}

/// Each command with what stands behind it and what it does.
const COMMANDS: [(&str, &str, &str); 5] = [
    ("/image", "PATH", "show a picture with the next question"),
    ("/reset", "", "forget what was said"),
    ("/save", "FILE", "write the conversation as JSON, as `annotate --messages` reads it"),
    ("/help", "", "show this"),
    ("/quit", "", "end, as Ctrl-D does"),
];

/// What `/help` shows.
pub fn help() -> String {
    let mut help = String::new();
    for (name, argument, does) in COMMANDS {
        help += &format!("{:<14}{does}\n", format!("{name} {argument}"));
    }
    help + "Ctrl-C        stop the answer, and keep the conversation\n//...         a question that begins with /\n"
}

impl Line {
    /// Reads a line.
    pub fn parse(line: &str) -> Self {
        let line = line.trim();
        let Some(command) = line.strip_prefix('/') else {
            return if line.is_empty() { Self::Empty } else { Self::Question(line.to_owned()) };
        };
        if command.starts_with('/') {
            return Self::Question(command.to_owned());
        }
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        match (name, argument) {
            ("/image" | "/save", "") => Self::Unknown(format!("{name} needs a path behind it")),
            ("/image", path) => Self::Image(unquoted(path)),
            ("/save", path) => Self::Save(unquoted(path)),
            ("/reset", "") => Self::Reset,
            ("/help", _) => Self::Help,
            ("/quit" | "/exit", "") => Self::Quit,
            ("/reset" | "/quit" | "/exit", _) => Self::Unknown(format!("{name} takes nothing behind it")),
            _ => Self::Unknown(unknown(name)),
        }
    }
}

fn unknown(name: &str) -> String {
    let names = COMMANDS.iter().map(|(name, ..)| *name);
    let nearest = names.max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
    let nearest = nearest.filter(|known| strsim::jaro(known, name) > 0.7);
    let hint = nearest.map_or_else(String::new, |nearest| format!(", did you mean {nearest}"));
    format!("unknown command {name}{hint}; /help lists them, and // begins a question with /")
}

/// A path as terminals paste it: in quotes, or with its spaces escaped.
fn unquoted(path: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inside) = path.strip_prefix(quote).and_then(|p| p.strip_suffix(quote)) {
            return inside.to_owned();
        }
    }
    if cfg!(unix) { path.replace("\\ ", " ") } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_mean_what_help_says() {
        let image = |path: &str| Line::Image(path.to_owned());
        let question = |text: &str| Line::Question(text.to_owned());
        for (line, want) in [
            ("", Line::Empty),
            ("  ", Line::Empty),
            (" What? ", question("What?")),
            ("//etc is what?", question("/etc is what?")),
            ("/image a.png", image("a.png")),
            ("/image  my cat.png ", image("my cat.png")),
            ("/image 'my cat.png'", image("my cat.png")),
            ("/image \"a\"", image("a")),
            ("/reset", Line::Reset),
            ("/save talk.json", Line::Save("talk.json".to_owned())),
            ("/help me", Line::Help),
            ("/quit", Line::Quit),
            ("/exit", Line::Quit),
        ] {
            assert_eq!(Line::parse(line), want, "{line}");
        }
        if cfg!(unix) {
            assert_eq!(Line::parse("/image my\\ cat.png"), image("my cat.png"));
        }
        for (line, hint) in [
            ("/imgae x", "did you mean /image"),
            ("/restart", "/help"),
            ("/image", "needs a path"),
            ("/reset all", "takes nothing"),
        ] {
            let Line::Unknown(said) = Line::parse(line) else { panic!("{line}") };
            assert!(said.contains(hint), "{said}");
        }
    }
}
