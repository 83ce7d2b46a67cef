// Polls a round's progress; when its state changes, the page is loaded again to show what came of it.
const box = document.getElementById("progress");
const bar = box.querySelector("progress");
const words = box.querySelector("p");
const state = box.dataset.state;

async function look() {
  try {
    const reply = await fetch(box.dataset.url);
    if (!reply.ok) throw new Error(reply.status);
    const now = await reply.json();
    if (now.state !== state) { location.reload(); return; }
    bar.max = now.total || 1;
    bar.value = now.step;
    words.textContent = now.total ? `${now.stage}: step ${now.step} of ${now.total}` : `${now.stage}: starting`;
  } catch {
    words.textContent = "The server does not answer; trying again.";
  }
  setTimeout(look, 2000);
}
look();
