"""A report as its reader's browser takes it: well-formed, its tables, tags and words."""

import html.parser

from vif.cli import main

VOID = {"meta", "link", "br", "img", "use", "path", "image", "rect"}


class Page(html.parser.HTMLParser):
    """Text of the page by table, its attributes, and whether every tag that opens is closed."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.text, self.open, self.tags, self.attributes, self.tables, self.ids = text, [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data

    def rows(self, header):
        return next(table for table in self.tables if table[0][0] == header)


def report(run, shared, *arguments):
    root = str(shared.parents[1] / "data")
    options = ["--root", root, "--map", "pca", "--queries", "1", "--protocols", "AG", "ALL"]
    assert main(["report", str(run), *options, *map(str, arguments)]) == 0
    return Page((run / "report.html").read_text(encoding="utf-8"))
