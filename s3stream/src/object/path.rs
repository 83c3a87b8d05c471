//! Where an object is in the bucket: `<prefix>/objects/<id as 16 hexadecimal digits, lowest digit first>`.
//!
//! Stores split their key space by prefix. Ids grow by one, so with the lowest digit first consecutive objects land in
//! different parts of it, and a listing can be shared out by the first digit.

use object_store::path::Path;

use crate::ObjectId;

const FOLDER: &str = "objects";
const DIGITS: usize = 16;

/// The path of an object below a cluster's prefix.
pub fn object_path(prefix: &Path, object: ObjectId) -> Path {
    let digits: String = format!("{:0DIGITS$x}", object.get())
        .chars()
        .rev()
        .collect();
    prefix.clone().join(FOLDER).join(digits)
}

/// The object that a listed path stands for, or `None` if it is not exactly what [`object_path`] makes.
pub fn object_id(prefix: &Path, path: &Path) -> Option<ObjectId> {
    let digits: String = path.filename()?.chars().rev().collect();
    let object = ObjectId::new(u64::from_str_radix(&digits, 16).ok()?);
    (object_path(prefix, object) == *path).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_objects_differ_in_their_first_digit() {
        let prefix = Path::from("a/b");
        let path = |id| object_path(&prefix, ObjectId::new(id)).to_string();
        assert_eq!(path(1), "a/b/objects/1000000000000000");
        assert_eq!(path(2), "a/b/objects/2000000000000000");
        assert_eq!(path(0x1F), "a/b/objects/f100000000000000");
        assert_eq!(path(u64::MAX), "a/b/objects/ffffffffffffffff");
        let root = object_path(&Path::default(), ObjectId::new(0x10));
        assert_eq!(root.to_string(), "objects/0100000000000000");
    }

    #[test]
    fn a_path_gives_its_id_back_and_other_names_give_none() {
        let prefix = Path::from("p");
        for id in [0, 1, 0xABCD_EF01_2345, u64::MAX] {
            let path = object_path(&prefix, ObjectId::new(id));
            assert_eq!(object_id(&prefix, &path), Some(ObjectId::new(id)));
        }
        for other in [
            "p/objects/100000000000000",
            "p/objects/1000000000000000.tmp",
            "p/objects/A000000000000000",
            "p/objects/+000000000000000",
            "p/objects/x/1000000000000000",
            "q/objects/1000000000000000",
            "p/cluster",
        ] {
            assert_eq!(object_id(&prefix, &Path::from(other)), None, "{other}");
        }
    }
}
