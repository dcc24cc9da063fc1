// A file that is picked becomes the text of its form; it stays on this machine until the form is sent.
for (const pick of document.querySelectorAll("[data-pick]")) {
  pick.addEventListener("change", async () => {
    const file = pick.files[0];
    if (file) pick.form.elements[pick.dataset.pick].value = await file.text();
  });
}
