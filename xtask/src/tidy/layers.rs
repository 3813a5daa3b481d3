//! The arrows between our crates: down only, as ARCHITECTURE.md draws them.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Package};

use super::Problems;

/// What a package may depend on, apart from crates of others.
struct Layer {
    name: &'static str,
    may: &'static [&'static str],
    /// What its tests, examples and benches may use on top, the test kit excepted, which all may.
    tests_may: &'static [&'static str],
}

const BOTTOM: &[&str] = &["qwen2vl-types"];

const LAYERS: &[Layer] = &[
    Layer { name: "qwen2vl-types", may: &[], tests_may: &[] },
    Layer { name: "qwen2vl-preprocess", may: BOTTOM, tests_may: &[] },
    Layer { name: "qwen2vl-video", may: &["qwen2vl-preprocess"], tests_may: &[] },
    Layer { name: "qwen2vl-tokenizer", may: BOTTOM, tests_may: &[] },
    Layer { name: "qwen2vl-kernels", may: &[], tests_may: &[] },
    Layer { name: "qwen2vl-shim", may: &["qwen2vl-kernels"], tests_may: &[] },
    Layer { name: "qwen2vl-runtime", may: &["qwen2vl-shim", "qwen2vl-types"], tests_may: &[] },
    Layer {
        name: "qwen2vl-grammar",
        may: &["qwen2vl-runtime", "qwen2vl-tokenizer", "qwen2vl-types"],
        tests_may: &[],
    },
    Layer { name: "qwen2vl-spark-files", may: &[], tests_may: &[] },
    Layer {
        name: "qwen2vl-package",
        may: &[
            "qwen2vl-preprocess",
            "qwen2vl-tokenizer",
            "qwen2vl-runtime",
            "qwen2vl-spark-files",
            "qwen2vl-types",
        ],
        tests_may: &[],
    },
    Layer {
        name: "qwen2vl-pipeline",
        may: &[
            "qwen2vl-package",
            "qwen2vl-preprocess",
            "qwen2vl-video",
            "qwen2vl-grammar",
            "qwen2vl-tokenizer",
            "qwen2vl-runtime",
            "qwen2vl-types",
        ],
        tests_may: &[],
    },
    Layer { name: "qwen2vl-fetch", may: &["qwen2vl-package"], tests_may: &[] },
    Layer {
        name: "qwen2vl-spark-nlp",
        may: &["qwen2vl-pipeline", "qwen2vl-fetch", "qwen2vl-preprocess", "qwen2vl-spark-files"],
        tests_may: &["qwen2vl-package", "qwen2vl-tokenizer", "qwen2vl-runtime"],
    },
    Layer { name: "qwen2vl-demo-model", may: &[], tests_may: &[] },
    Layer {
        name: "qwen2vl-cli",
        may: &["qwen2vl-pipeline", "qwen2vl-fetch", "qwen2vl-demo-model"],
        tests_may: &[],
    },
    Layer { name: "qwen2vl-testkit", may: BOTTOM, tests_may: &[] },
    Layer {
        name: "qwen2vl-tests",
        may: &["qwen2vl-testkit"],
        tests_may: &[
            "qwen2vl-pipeline",
            "qwen2vl-package",
            "qwen2vl-preprocess",
            "qwen2vl-runtime",
            "qwen2vl-tokenizer",
            "qwen2vl-types",
            "qwen2vl-demo-model",
        ],
    },
    Layer { name: "xtask", may: &[], tests_may: &[] },
];

const TEST_KIT: &str = "qwen2vl-testkit";

/// An arrow from one of our packages to another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arrow<'a> {
    from: &'a str,
    to: &'a str,
    for_tests: bool,
}

/// Checks all arrows between the workspace's packages.
pub fn check(packages: &[Package]) -> Problems {
    let ours: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    let arrows: Vec<Arrow<'_>> = packages
        .iter()
        .flat_map(|p| p.dependencies.iter().map(move |d| (p, d)))
        .filter(|(_, d)| ours.contains(d.name.as_str()))
        .map(|(p, d)| Arrow { from: &p.name, to: &d.name, for_tests: d.kind == DependencyKind::Development })
        .collect();
    let names: Vec<&str> = ours.into_iter().collect();
    check_arrows(&names, &arrows)
}

fn check_arrows(names: &[&str], arrows: &[Arrow<'_>]) -> Problems {
    let layer = |name: &str| LAYERS.iter().find(|l| l.name == name);
    let unknown = names.iter().filter(|name| layer(name).is_none()).map(|name| {
        format!("{name} has no place among the layers; give it one in xtask/src/tidy/layers.rs and ARCHITECTURE.md")
    });
    let forbidden = arrows.iter().filter(|arrow| {
        layer(arrow.from).is_some_and(|l| {
            let in_tests = arrow.for_tests && (arrow.to == TEST_KIT || l.tests_may.contains(&arrow.to));
            !in_tests && !l.may.contains(&arrow.to)
        })
    });
    let forbidden = forbidden.map(|Arrow { from, to, for_tests }| {
        let kind = if *for_tests { "its tests depend" } else { "it depends" };
        format!("{from}: {kind} on {to}, which it must not know")
    });
    unknown.chain(forbidden).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_down_pass_and_others_do_not() {
        let cases = [
            ("qwen2vl-cli", "qwen2vl-pipeline", false, true),
            ("qwen2vl-cli", "qwen2vl-runtime", false, false),
            ("qwen2vl-pipeline", "qwen2vl-runtime", false, true),
            ("qwen2vl-pipeline", "qwen2vl-cli", true, false),
            ("qwen2vl-preprocess", "qwen2vl-tokenizer", false, false),
            ("qwen2vl-preprocess", "qwen2vl-types", false, true),
            ("qwen2vl-preprocess", "qwen2vl-testkit", true, true),
            ("qwen2vl-preprocess", "qwen2vl-testkit", false, false),
            ("qwen2vl-tests", "qwen2vl-pipeline", true, true),
            ("qwen2vl-tests", "qwen2vl-cli", true, false),
            ("xtask", "qwen2vl-types", false, false),
        ];
        for (from, to, for_tests, allowed) in cases {
            let problems = check_arrows(&[from, to], &[Arrow { from, to, for_tests }]);
            assert_eq!(problems.is_empty(), allowed, "{from} → {to}: {problems:?}");
            if !allowed {
                assert!(problems[0].contains(from) && problems[0].contains(to), "{problems:?}");
            }
        }
    }

    #[test]
    fn a_new_crate_has_to_be_given_a_place() {
        let problems = check_arrows(&["qwen2vl-new"], &[]);
        assert!(problems[0].starts_with("qwen2vl-new has no place"), "{problems:?}");
    }

    #[test]
    fn the_layers_have_no_cycle() {
        // Each layer may know only what stands above it in the table, or the table is not sorted from the bottom up.
        for (i, layer) in LAYERS.iter().enumerate() {
            for lower in layer.may {
                assert!(LAYERS[..i].iter().any(|l| l.name == *lower), "{} → {lower}", layer.name);
            }
        }
    }
}
