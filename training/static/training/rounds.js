// Shows what is wrong with the rows of the snapshot that the launch form names. Without this module
// a link opens the same on a page of its own.
const choice = document.querySelector("select[name=snapshot]");
const box = document.getElementById("preflight");
const link = document.getElementById("preflight-link");
let asked = 0;

async function look() {
  const mine = ++asked;
  const address = link.dataset.address.replace("/0/", `/${encodeURIComponent(choice.value)}/`);
  link.href = address;
  box.setAttribute("aria-busy", "true");
  try {
    const reply = await fetch(`${address}panel`);
    if (mine !== asked) return;
    if (reply.redirected || !reply.ok) throw new Error(reply.status);
    box.innerHTML = await reply.text(); // our own template: every text in it is escaped
  } catch {
    if (mine === asked) box.textContent = "The rows could not be looked at just now.";
  } finally {
    if (mine === asked) box.removeAttribute("aria-busy");
  }
}
choice.addEventListener("change", look);
look();

// Shows what each stage needs, whenever the form holds something else.
const plan = document.getElementById("plan");
let planned = 0;
let soon = 0;

async function count() {
  const mine = ++planned;
  plan.setAttribute("aria-busy", "true");
  try {
    const body = new FormData(plan.closest("form"));
    const reply = await fetch(plan.dataset.address, { method: "POST", body });
    if (mine !== planned) return;
    if (reply.redirected || !reply.ok) throw new Error(reply.status);
    plan.innerHTML = await reply.text(); // our own template: every text in it is escaped
  } catch {
    if (mine === planned) plan.textContent = "What it needs could not be counted just now.";
  } finally {
    if (mine === planned) plan.removeAttribute("aria-busy");
  }
}
plan.closest("form").addEventListener("input", () => {
  clearTimeout(soon);
  soon = setTimeout(count, 300);
});
count();
