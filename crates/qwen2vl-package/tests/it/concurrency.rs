//! One zip opened by many at once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;

use qwen2vl_package::ModelPackage;

use super::{Export, Place};

const CHILD: &str = "QWEN2VL_PACKAGE_TEST_CHILD";
const PROCESSES: usize = 4;

/// Large enough that the others arrive while the first unpacks.
fn slow_zip() -> Vec<u8> {
    let noise: Vec<u8> = (0..4_u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Export::new().file("openvino_language_model.bin", noise).zip("m/")
}

/// Every file's modification time: unpacking again would change them.
fn times(root: &Path) -> Vec<(PathBuf, std::time::SystemTime)> {
    let mut times: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.path(), e.metadata().unwrap().modified().unwrap()))
        .collect();
    times.sort();
    times
}

#[test]
fn threads_get_one_folder_unpacked_once() {
    let place = Place::new();
    let path = place.dir.path().join("m.zip");
    std::fs::write(&path, slow_zip()).unwrap();
    let barrier = Barrier::new(4);
    let results: Vec<_> = std::thread::scope(|scope| {
        let open = || {
            barrier.wait();
            let package = ModelPackage::open(&path, &place.cache()).unwrap();
            (times(&package.root), package)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(results.iter().all(|r| *r == results[0]), "opened differently");
    assert_eq!(place.cached().len(), 1);
}

/// Runs itself in other processes: with [`CHILD`] set it only opens the zip that is named there.
#[test]
fn processes_get_one_folder_unpacked_once() {
    if let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) {
        let package = ModelPackage::open(&dir.join("m.zip"), &dir.join("cache")).unwrap();
        let report = format!("{:?}", times(&package.root));
        return std::fs::write(dir.join(format!("report-{}", std::process::id())), report).unwrap();
    }
    let place = Place::new();
    let dir = place.dir.path();
    std::fs::write(dir.join("m.zip"), slow_zip()).unwrap();
    let start = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "concurrency::processes_get_one_folder_unpacked_once"]).env(CHILD, dir);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..PROCESSES).map(|_| start()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let reports: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("report-"))
        .map(|p| std::fs::read_to_string(p).unwrap())
        .collect();
    assert_eq!(reports.len(), PROCESSES);
    assert!(reports.iter().all(|r| *r == reports[0]), "{reports:#?}");
    assert_eq!(place.cached().len(), 1);
}
