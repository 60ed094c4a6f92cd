// What the console's pages do besides what the server does. Every page works without it.
'use strict';

// Messages of what went wrong are read first.
document.querySelector('[data-focus]')?.focus();

// Fields that matter only with a certain choice.
for (const part of document.querySelectorAll('[data-when]')) {
  const [name, value] = part.dataset.when.split('=');
  const fields = part.closest('form').elements;
  const update = () => { part.hidden = fields[name].value !== value; };
  part.closest('form').addEventListener('change', update);
  update();
}

// Copies a text that is shown once.
for (const button of document.querySelectorAll('[data-copy]')) {
  if (!navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = 'Copied';
  });
}

// The order of access rules: by dragging, or by Alt and an arrow key. The server has the last word.
const list = document.querySelector('[data-sortable]');
if (list) {
  list.classList.add('ready');
  const form = list.closest('form');
  const send = (rule) => {
    const moved = Object.assign(document.createElement('input'), { type: 'hidden', name: 'moved', value: rule.id });
    form.append(moved);
    // Not by a button: one of them would move a rule once more.
    form.submit();
  };
  let dragged = null;
  let before = null;
  list.addEventListener('dragstart', (event) => {
    dragged = event.target.closest('.rule');
    if (!dragged) return;
    before = dragged.nextElementSibling;
    event.dataTransfer.effectAllowed = 'move';
    event.dataTransfer.setData('text/plain', dragged.id);
    dragged.classList.add('dragged');
  });
  list.addEventListener('dragover', (event) => {
    const over = event.target.closest('.rule');
    if (!dragged) return;
    event.preventDefault();
    if (!over || over === dragged) return;
    const { top, height } = over.getBoundingClientRect();
    list.insertBefore(dragged, event.clientY < top + height / 2 ? over : over.nextElementSibling);
  });
  list.addEventListener('drop', (event) => event.preventDefault());
  list.addEventListener('dragend', (event) => {
    if (!dragged) return;
    const rule = dragged;
    dragged.classList.remove('dragged');
    dragged = null;
    if (event.dataTransfer.dropEffect === 'none') list.insertBefore(rule, before);
    else if (rule.nextElementSibling !== before) send(rule);
  });
  list.addEventListener('keydown', (event) => {
    const rule = event.target.closest('.rule');
    if (!rule || !event.altKey || !['ArrowUp', 'ArrowDown'].includes(event.key)) return;
    event.preventDefault();
    const button = rule.querySelector(`[data-move=${event.key === 'ArrowUp' ? 'up' : 'down'}]`);
    if (button && !button.disabled) button.click();
  });
}
