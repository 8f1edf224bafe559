//! Requests in lines of text: words between spaces, or in quotes with escapes.

/// The words of a request, with their quotes and escapes resolved.
pub fn words(request: &str) -> Vec<Vec<u8>> {
    let mut rest = request.trim_start();
    let mut words = Vec::new();
    while !rest.is_empty() {
        let word = if rest.starts_with('"') {
            quoted(&mut rest)
        } else {
            let end = rest.find(' ').unwrap_or(rest.len());
            let (word, tail) = rest.split_at(end);
            rest = tail;
            word.as_bytes().to_vec()
        };
        words.push(word);
        rest = rest.trim_start();
    }
    words
}

/// Takes a quoted string off the start of `rest`.
pub fn quoted(rest: &mut &str) -> Vec<u8> {
    let text = *rest;
    let mut bytes = Vec::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((index, char)) = chars.next() {
        match char {
            '"' => {
                *rest = &text[index + 1..];
                return bytes;
            }
            '\\' => match chars.next().map(|(_, escape)| escape) {
                Some('n') => bytes.push(b'\n'),
                Some('r') => bytes.push(b'\r'),
                Some('t') => bytes.push(b'\t'),
                Some('x') => {
                    let hex: String = chars.by_ref().take(2).map(|(_, digit)| digit).collect();
                    bytes.push(u8::from_str_radix(&hex, 16).unwrap_or_else(|_| panic!("bad \\x{hex}")));
                }
                Some(other) => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
                None => break,
            },
            other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    panic!("a quote is not closed in: {text}")
}
