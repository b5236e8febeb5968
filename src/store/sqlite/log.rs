//! Whether the write-ahead log is damaged, which SQLite takes for its end: it would go on without what lies behind.
//!
//! A power cut tears the last commit alone, since each is flushed before the next. So where two commits lie behind a frame that
//! is not whole, that is damage. In the last commit of all the two look the same (Alagappan et al., "Protocol-Aware Recovery for
//! Consensus-Based Storage", FAST 2018). The form is that of <https://sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

const HEAD_BYTES: usize = 32;
const FRAME_HEAD_BYTES: usize = 24;
const MAGIC: u32 = 0x377f_0682;
const PAGE_BYTES: std::ops::RangeInclusive<usize> = 512..=65_536;
/// How many commits behind a frame show that it was whole once.
const COMMITS_MIN: usize = 2;

/// Reads the log of a store that nobody has open; what is wrong with it, if anything is.
pub fn check(log: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(log) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => BufReader::with_capacity(1 << 20, file?),
    };
    let mut head = [0; HEAD_BYTES];
    if !fill(&mut file, &mut head)? {
        return Ok(None);
    }
    let Some(mut sum) = Sum::begin(&head) else {
        // It is flushed before what follows.
        let why = "the log of the store is damaged at its beginning; what it has would be lost. Remove it to go on without";
        return Ok((head != [0; HEAD_BYTES]).then(|| why.to_owned()));
    };
    let (salts, page_bytes) = (&head[16..24], word(&head[8..], false) as usize);
    if !PAGE_BYTES.contains(&page_bytes) {
        return Ok(Some("the log of the store has pages of no size that there is".to_owned()));
    }
    let mut frame = vec![0; FRAME_HEAD_BYTES + page_bytes];
    let (mut end, mut commits, mut at) = (None, 0, HEAD_BYTES);
    while fill(&mut file, &mut frame)? {
        let is_of_this_log = frame[8..16] == *salts;
        if end.is_none() && !(is_of_this_log && sum.takes(&frame)) {
            end = Some(at);
        }
        // The number of pages stands in the last frame of a commit alone.
        if end.is_some() && is_of_this_log && word(&frame[4..], false) != 0 {
            commits += 1;
        }
        at += frame.len();
    }
    Ok(end.filter(|_| commits >= COMMITS_MIN).map(|end| {
        format!(
            "the log of the store is damaged at byte {end}, and {commits} commits behind that would be lost. Cut it off there to \
             go on without them"
        )
    }))
}

/// Whether there was enough to fill `bytes`.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        result => result.map(|()| true),
    }
}

fn word(bytes: &[u8], is_little: bool) -> u32 {
    let bytes = bytes[..4].try_into().expect("there are four");
    if is_little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
}

/// The sum over all that a log has so far.
struct Sum {
    is_little: bool,
    sum: (u32, u32),
}

impl Sum {
    /// The sum over a log's head, if that is whole.
    fn begin(head: &[u8; HEAD_BYTES]) -> Option<Self> {
        let magic = word(head, false);
        // Its last bit tells in which order the sums take the bytes.
        let mut sum = Self { is_little: magic == MAGIC, sum: (0, 0) };
        sum.add(&head[..24]);
        (magic & !1 == MAGIC && sum.is(&head[24..])).then_some(sum)
    }

    /// Whether a frame is the next and whole.
    fn takes(&mut self, frame: &[u8]) -> bool {
        self.add(&frame[..8]);
        self.add(&frame[FRAME_HEAD_BYTES..]);
        self.is(&frame[16..])
    }

    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks_exact(8) {
            let (first, second) = (word(pair, self.is_little), word(&pair[4..], self.is_little));
            self.sum.0 = self.sum.0.wrapping_add(first).wrapping_add(self.sum.1);
            self.sum.1 = self.sum.1.wrapping_add(second).wrapping_add(self.sum.0);
        }
    }

    fn is(&self, told: &[u8]) -> bool {
        (word(told, false), word(&told[4..], false)) == self.sum
    }
}
