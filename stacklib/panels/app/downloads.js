// Links that download files through the connection of the widget, so that the server need not serve folders.

function render({ model, el }) {
  const list = document.createElement("ul");
  list.style.cssText = "margin: 4px 0; padding-left: 1.3em; line-height: 1.7";
  const parts = {};
  const links = model.get("files").map(({ name, size }, file) => {
    const link = document.createElement("a");
    link.href = "#";
    link.textContent = name;
    link.style.cssText = "color: var(--jp-content-link-color, #1976d2); text-decoration: underline";
    const words = document.createElement("span");
    words.setAttribute("role", "status");
    const usual = size < 1e5 ? ` ${Math.ceil(size / 1e3)} kB` : ` ${(size / 1e6).toFixed(1)} MB`;
    words.textContent = usual;
    link.onclick = (event) => {
      event.preventDefault();
      if (parts[file]) return;
      parts[file] = [];
      model.send({ file, part: 0 });
    };
    const item = document.createElement("li");
    item.append(link, words);
    list.append(item);
    return { name, usual, words };
  });
  const heard = ({ file, count, problem }, buffers) => {
    const { name, usual, words } = links[file];
    if (problem) {
      words.textContent = ` ${problem}`;
      delete parts[file];
      return;
    }
    if (!parts[file]) return;
    parts[file].push(buffers[0]);
    const done = parts[file].length;
    if (done < count) {
      words.textContent = ` ${Math.round((100 * done) / count)} %`;
      model.send({ file, part: done });
      return;
    }
    const address = URL.createObjectURL(new Blob(parts[file]));
    const save = document.createElement("a");
    save.href = address;
    save.download = name;
    save.click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    words.textContent = usual;
    delete parts[file];
  };
  model.on("msg:custom", heard);
  el.replaceChildren(list);
  return () => model.off("msg:custom", heard);
}

export default { render };
