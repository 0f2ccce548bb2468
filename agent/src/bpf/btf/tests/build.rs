//! Makes small BTF, and remembers which words of it are members' offsets.

pub const STRUCT: u32 = 4;
pub const UNION: u32 = 5;

/// BTF under construction.
#[derive(Default)]
pub struct Blob {
    words: Vec<u32>,
    strings: Vec<u8>,
    count: u32,
    /// Words that hold an offset of a member.
    offsets: Vec<usize>,
}

impl Blob {
    /// Where the name lies among the strings.
    pub fn name(&mut self, name: &str) -> u32 {
        if self.strings.is_empty() {
            self.strings.push(0);
        }
        if name.is_empty() {
            return 0;
        }
        let at = self.strings.len();
        self.strings.extend(name.bytes().chain([0]));
        u32::try_from(at).unwrap()
    }

    fn add(&mut self, name: &str, info: u32, word: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.words.extend([name, info, word]);
        self.words.extend(rest);
        self.count += 1;
        self.count
    }

    pub fn int(&mut self, name: &str, size: u32) -> u32 {
        self.int_of_bits(name, size, size * 8)
    }

    pub fn int_of_bits(&mut self, name: &str, size: u32, bits: u32) -> u32 {
        self.add(name, 1 << 24, size, &[bits])
    }

    pub fn array(&mut self, of: u32, count: u32) -> u32 {
        self.add("", 3 << 24, 0, &[of, of, count])
    }

    /// A pointer, typedef, qualifier or bare function prototype.
    pub fn wrap(&mut self, kind: u32, of: u32) -> u32 {
        self.add("", kind << 24, of, &[])
    }

    /// Members are name, type and bit offset; with `flag`, the offset's top byte is a bit field's width.
    pub fn aggregate(&mut self, kind: u32, name: &str, size: u32, flag: bool, members: &[(&str, u32, u32)]) -> u32 {
        let info = u32::from(flag) << 31 | kind << 24 | u32::try_from(members.len()).unwrap();
        let id = self.add(name, info, size, &[]);
        for (name, of, bits) in members {
            let name = self.name(name);
            self.offsets.push(self.words.len() + 2);
            self.words.extend([name, *of, *bits]);
        }
        id
    }

    /// Bytes of the whole, header first.
    pub fn bytes(&self) -> Vec<u8> {
        let length = |bytes: usize| u32::try_from(bytes).unwrap();
        let types = length(self.words.len() * 4);
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, length(self.strings.len())].iter().chain(&self.words) {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(&self.strings);
        bytes
    }

    /// Whether that byte of [`Self::bytes`] belongs to a member's offset.
    pub fn is_offset(&self, byte: usize) -> bool {
        byte >= 24 && self.offsets.contains(&((byte - 24) / 4))
    }
}

/// Fields of [`kernel`]'s `task_struct`: path, offset, size.
pub const FIELDS: [(&str, u32, u32); 6] = [
    ("pid", 0, 4),
    ("lost", 8, 4),
    ("se.sum_exec_runtime", 24, 8),
    ("se.depth", 32, 4),
    ("comm", 40, 16),
    ("mm", 56, 8),
];
/// Bytes of that struct.
pub const SIZE: u32 = 64;

/// A kernel with a bit field, an anonymous struct, a qualified one, an array and a pointer.
pub fn kernel() -> Blob {
    let mut blob = Blob::default();
    let (int, long, char) = (blob.int("int", 4), blob.int("long", 8), blob.int("char", 1));
    let members = [("exec_start", long, 0), ("sum_exec_runtime", long, 64), ("depth", int, 128)];
    let entity = blob.aggregate(STRUCT, "sched_entity", 24, false, &members);
    let volatile = blob.wrap(9, entity);
    let anonymous = blob.aggregate(STRUCT, "", 32, false, &[("lost", int, 0), ("se", volatile, 64)]);
    let comm = blob.array(char, 16);
    let pointer = blob.wrap(2, entity);
    let members = [
        ("pid", int, 0),
        ("frozen", int, 1 << 24 | 32),
        ("", anonymous, 64),
        ("comm", comm, 320),
        ("mm", pointer, 448),
    ];
    blob.aggregate(STRUCT, "task_struct", SIZE, true, &members);
    blob.aggregate(STRUCT, "unrelated", 16, false, &[("x", int, 0), ("runtime", long, 64)]);
    blob
}
