//! What a figure was measured on.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use crate::openvino;

/// Instruction sets that decide which kernels run.
const CPU_FLAGS: &[&str] =
    &["avx2", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "amx_bf16"];

/// Several lines, `name: value`.
pub fn describe(library: &Path) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (model, flags) = cpu(&read("/proc/cpuinfo"));
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name}: {value}");
    };
    line("cpu", &format!("{model}, {cores} cores usable, {flags}"));
    if let Some(kb) = field(&read("/proc/meminfo"), "MemTotal").and_then(first_number) {
        line("memory", &format!("{:.1} GiB", kb / 1024.0 / 1024.0));
    }
    line("system", &format!("{} {}", pretty_name(&read("/etc/os-release")), std::env::consts::ARCH));
    if let Some(load) = read("/proc/loadavg").split(' ').next().filter(|l| !l.is_empty()) {
        line("load before", load);
    }
    let release = openvino::release(library).unwrap_or_else(|| "of unknown release".to_owned());
    line("openvino", &release);
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    line("rustc", &output(Command::new(rustc).arg("--version")));
    line("qwen2vl", &format!("{} {}", env!("CARGO_PKG_VERSION"), commit()));
    text
}

/// Model name and the flags of interest.
fn cpu(cpuinfo: &str) -> (String, String) {
    let model = field(cpuinfo, "model name").unwrap_or(std::env::consts::ARCH);
    let has: Vec<&str> = field(cpuinfo, "flags").unwrap_or_default().split(' ').collect();
    let flags: Vec<&str> = CPU_FLAGS.iter().copied().filter(|flag| has.contains(flag)).collect();
    (model.to_owned(), flags.join(" "))
}

/// The first `name : value` of a file in the manner of /proc.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter_map(|l| l.split_once(':')).find(|(n, _)| n.trim() == name).map(|(_, v)| v.trim())
}

fn first_number(text: &str) -> Option<f64> {
    text.split(' ').next()?.parse().ok()
}

fn pretty_name(os_release: &str) -> &str {
    let name = os_release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or(std::env::consts::OS, |n| n.trim_matches('"'))
}

fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "describe", "--always", "--dirty"])
        .current_dir(crate::workspace::root());
    output(&mut git)
}

fn output(command: &mut Command) -> String {
    let output = command.output().map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Fast CPU\nflags\t\t: fpu avx2 avx512f xyz\n\nmodel name\t: Other\n";
        assert_eq!(cpu(cpuinfo), ("Fast CPU".to_owned(), "avx2 avx512f".to_owned()));
        assert_eq!(field("MemTotal:  1048576 kB\n", "MemTotal").and_then(first_number), Some(1_048_576.0));
        assert_eq!(pretty_name("NAME=x\nPRETTY_NAME=\"Debian 13\"\n"), "Debian 13");
        assert_eq!(pretty_name(""), std::env::consts::OS);
    }
}
