//! What a document holds: its code, its links, and the anchors of its headings. Knows nothing of what is done with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

pub struct Document {
    /// From the root of the repository.
    pub path: String,
    pub blocks: Vec<Block>,
    /// Where links and images point to, with their lines.
    pub links: Vec<(usize, String)>,
    /// What may stand behind `#` in a link to this document.
    pub anchors: BTreeSet<String>,
    /// All that is set as code, line by line, in blocks and within text.
    pub code: Vec<(usize, String)>,
}

/// A fenced block of code.
pub struct Block {
    /// Where its fence is.
    pub line: usize,
    /// What stands behind the fence.
    pub info: String,
    pub text: String,
}

impl Block {
    /// Whether its command lines are to be run.
    pub fn is_run(&self) -> bool {
        self.info == "sh"
    }

    /// Why they are not.
    pub fn reason(&self) -> Option<&str> {
        self.info.strip_prefix("sh not-run: ")
    }
}

impl Document {
    pub fn read(root: &Path, path: &Path) -> Document {
        let path_from_root = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        Document::parse(path_from_root, &fs::read_to_string(path).unwrap())
    }

    fn parse(path: String, text: &str) -> Document {
        let mut document = Document {
            path,
            blocks: Vec::new(),
            links: Vec::new(),
            anchors: BTreeSet::new(),
            code: Vec::new(),
        };
        let (mut block, mut heading): (Option<Block>, Option<String>) = (None, None);
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = 1 + text[..range.start].matches('\n').count();
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.to_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    block = Some(Block { line, info, text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => {
                    let block = block.take().expect("a block that ends has begun");
                    let lines = block.text.lines().enumerate();
                    document
                        .code
                        .extend(lines.map(|(index, code)| (block.line + 1 + index, code.to_owned())));
                    document.blocks.push(block);
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().expect("a heading that ends has begun"));
                    let numbered = (1..).map(|number| format!("{anchor}-{number}"));
                    let mut names = [anchor.clone()].into_iter().chain(numbered);
                    let free = names.find(|name| !document.anchors.contains(name));
                    document.anchors.insert(free.expect("numbers do not end"));
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push((line, dest_url.to_string()));
                }
                Event::Text(part) => {
                    if let Some(block) = &mut block {
                        block.text.push_str(&part);
                    } else if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                    document.code.push((line, part.to_string()));
                }
                _ => {}
            }
        }
        document
    }

    /// Whether a block that is run names this program.
    pub fn runs_program(&self, program: &str) -> bool {
        let is_no_part = |it: char| it.is_whitespace() || "|&;()$".contains(it);
        let runs = |block: &Block| block.is_run() && block.text.split(is_no_part).any(|word| word == program);
        self.blocks.iter().any(runs)
    }
}

/// The name that GitHub gives a heading: in lower case, without punctuation, with hyphens for blanks.
fn anchor(heading: &str) -> String {
    let kept = |char: &char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_');
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

#[test]
fn a_document_is_read_as_readers_see_it() {
    let text = "# The `A`, once\n\n# The A, once\n\n[b](c.md#d) `make e`\n\n```sh not-run: f\nmake g # [h](i)\n```\n\n\
                ```sh\njq . j | curl\n```\n";
    let document = Document::parse("a.md".to_owned(), text);
    assert_eq!(document.anchors, ["the-a-once".to_owned(), "the-a-once-1".to_owned()].into());
    assert_eq!(document.links, [(5, "c.md#d".to_owned())]);
    let code: Vec<_> = document.code.iter().map(|(line, code)| (*line, code.as_str())).collect();
    assert_eq!(code, [(1, "A"), (5, "make e"), (8, "make g # [h](i)"), (12, "jq . j | curl")]);
    let [not_run, run] = document.blocks.as_slice() else { panic!("two blocks") };
    assert!(!not_run.is_run() && not_run.reason() == Some("f") && run.is_run() && run.line == 11);
    assert!(document.runs_program("curl") && !document.runs_program("make"));
}
