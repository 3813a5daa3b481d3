//! NUMA nodes, as Linux lists them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Nodes with processors that this process may use; `None` where the system does not tell.
pub fn nodes() -> Option<usize> {
    nodes_of(&fs::read_to_string("/proc/self/status").ok()?, Path::new("/sys/devices/system/node"))
}

fn nodes_of(status: &str, folder: &Path) -> Option<usize> {
    let allowed = cpus(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)?;
    let lists = fs::read_dir(folder).ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_name().to_str()?.strip_prefix("node")?.parse::<u32>().ok()?;
        cpus(&fs::read_to_string(entry.path().join("cpulist")).ok()?)
    });
    Some(lists.filter(|list| !list.is_disjoint(&allowed)).count())
}

/// The numbers of a list as `0-3,8`.
fn cpus(list: &str) -> Option<BTreeSet<u32>> {
    let parts = list.trim().split(',').filter(|part| !part.is_empty());
    let ranges = parts.map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    });
    Some(ranges.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_count_whose_processors_may_be_used() {
        let folder = tempfile::tempdir().unwrap();
        for (node, list) in [("node0", "0-3,8-11\n"), ("node1", "4-7,12-15\n"), ("node2", "\n")] {
            fs::create_dir(folder.path().join(node)).unwrap();
            fs::write(folder.path().join(node).join("cpulist"), list).unwrap();
        }
        fs::write(folder.path().join("online"), "0-2\n").unwrap();
        let nodes =
            |allowed: &str| nodes_of(&format!("Name:\tx\nCpus_allowed_list:\t{allowed}\nx\n"), folder.path());
        assert_eq!(["0-15", "0-3", "3,4", "12"].map(nodes), [Some(2), Some(1), Some(2), Some(1)]);
        assert_eq!((nodes("nonsense"), nodes_of("", folder.path())), (None, None));
        assert_eq!(nodes_of("Cpus_allowed_list:\t0", Path::new("nowhere")), None);
    }
}
