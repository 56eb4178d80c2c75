"""The result as a page of Markdown."""


def page(found) -> str:
  about = found["environment"]
  versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
  small = ["", "**The smallest sizes: to see that it works. No figure here says anything of speed.**"]
  small = small if found["tiny"] else []
  lines = [
    f"# {about['device']}",
    "",
    f"The last call: `{about['command']}`, {about['date']}; {about['devices']} device, "
    f"{about['memory_gib']} GiB for JAX, "
    f"{about['cores']} cores of {about['processor']}; Python {about['python']}, {versions}.",
    *small,
  ]
  for name, part in found["parts"].items():
    lines += ["", section(name, part)]
  return "\n".join(lines) + "\n"


def section(name, part) -> str:
  of = ", ".join(f"{package} {version}" for package, version in part.get("versions", {}).items())
  about = f"{part['status']}; {part.get('seconds', 0)} s, {part.get('date', '')}"
  about += of and f"; `{part['command']}`, {of}"
  lines = [f"## {name.capitalize()}", "", about]
  groups = {}
  for row in part["rows"]:
    groups.setdefault(tuple(row), []).append(row)
  for columns, rows in groups.items():
    lines += ["", "| " + " | ".join(name.replace("_", " ") for name in columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(column, row[column]) for column in columns) + " |" for row in rows]
  lines += [""] * bool(part.get("notes")) + [f"- {note}" for note in part.get("notes", [])]
  return "\n".join(lines)


def cell(name, value) -> str:
  if value is None:
    return ""
  if isinstance(value, bool):
    return "yes" if value else "**NO**"
  if isinstance(value, str):
    return value.replace("|", "/")
  if name in ("flops", "useful_flops"):
    return f"{value / 1e12:,.1f} TFLOP/s"
  if name == "bytes_per_second":
    return f"{value / 1e9:,.0f} GB/s"
  if name in ("mfu", "share", "fill", "useful_row_steps"):
    return f"{value:.1%}"
  if isinstance(value, int) or value >= 1000:
    return f"{value:,.0f}"
  return f"{value:.3g}"
