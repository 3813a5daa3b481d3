//! Package metadata: what a registry and its readers need.

use cargo_metadata::Package;

use super::Problems;

const LICENSE: &str = "Apache-2.0";

/// The fields of a package that are looked at.
#[derive(Debug, Clone, Default)]
struct Manifest<'a> {
    name: &'a str,
    license: Option<&'a str>,
    description: Option<&'a str>,
    repository: Option<&'a str>,
    n_keywords: usize,
    n_categories: usize,
    has_readme: bool,
    publishable: bool,
}

/// Checks every package of the workspace.
pub fn check(packages: &[Package]) -> Problems {
    packages
        .iter()
        .map(|p| Manifest {
            name: &p.name,
            license: p.license.as_deref(),
            description: p.description.as_deref(),
            repository: p.repository.as_deref(),
            n_keywords: p.keywords.len(),
            n_categories: p.categories.len(),
            has_readme: p.readme().is_some_and(|readme| readme.is_file()),
            publishable: p.publish.as_ref().is_none_or(|registries| !registries.is_empty()),
        })
        .flat_map(|m| check_manifest(&m))
        .collect()
}

fn check_manifest(manifest: &Manifest<'_>) -> Problems {
    let filled = |field: Option<&str>| field.is_some_and(|f| !f.trim().is_empty());
    let mut missing = Vec::new();
    if manifest.license != Some(LICENSE) {
        missing.push("license = \"Apache-2.0\"");
    }
    if !filled(manifest.description) {
        missing.push("description");
    }
    if manifest.publishable {
        let needs = [
            (filled(manifest.repository), "repository"),
            (manifest.n_keywords > 0, "keywords"),
            (manifest.n_categories > 0, "categories"),
            (manifest.has_readme, "README.md"),
        ];
        missing.extend(needs.iter().filter(|(there, _)| !there).map(|(_, field)| *field));
    }
    missing.iter().map(|field| format!("{} lacks {field}", manifest.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> Manifest<'static> {
        Manifest {
            name: "a",
            license: Some(LICENSE),
            description: Some("does it"),
            repository: Some("https://example.org"),
            n_keywords: 1,
            n_categories: 1,
            has_readme: true,
            publishable: true,
        }
    }

    #[test]
    fn each_field_is_missed() {
        type Spoil = fn(&mut Manifest<'_>);
        let cases: [(&str, Spoil); 7] = [
            ("license", |m| m.license = None),
            ("license", |m| m.license = Some("MIT")),
            ("description", |m| m.description = Some(" ")),
            ("repository", |m| m.repository = None),
            ("keywords", |m| m.n_keywords = 0),
            ("categories", |m| m.n_categories = 0),
            ("README.md", |m| m.has_readme = false),
        ];
        assert_eq!(check_manifest(&complete()), Problems::new());
        for (field, spoil) in cases {
            let mut manifest = complete();
            spoil(&mut manifest);
            let problems = check_manifest(&manifest);
            assert!(
                problems.len() == 1 && problems[0].starts_with(&format!("a lacks {field}")),
                "{problems:?}"
            );
        }
    }

    #[test]
    fn what_is_not_published_needs_licence_and_description_alone() {
        let unpublished =
            Manifest { name: "a", license: Some(LICENSE), description: Some("x"), ..Manifest::default() };
        assert_eq!(check_manifest(&unpublished), Problems::new());
        assert_eq!(check_manifest(&Manifest { publishable: true, ..unpublished }).len(), 4);
    }
}
